#!/bin/sh
# `npm test`: the checks of `npm run ok`, then the short tier. `npm test -- test/crash/*.test.ts` runs only those, of any tier.
# `npm run test:long [-- --minutes N]`: the long tier (tools/tiers.ts).
tools/install-test-deps
if [ "$1" = --long ]; then
  shift
  exec node tools/run-tests.ts --tier long "$@" '{src,test,tools,web/src}/**/*.test.ts'
fi
if [ $# -gt 0 ]; then
  exec node tools/run-tests.ts "$@"
fi
node tools/ok.ts checks
checks=$?
node tools/run-tests.ts --tier short '{src,test,tools,web/src}/**/*.test.ts'
tests=$?
echo "npm run test:long runs the rest; CAIRN_TEST_LONG=1 runs every variant of a test, and kills at every failpoint"
[ $checks = 0 ] || echo "the checks failed, see the top" >&2
[ $checks = 0 ] && [ $tests = 0 ]
