#!/bin/sh
# `npm test`: the checks of `npm run ok`, then every test. `npm test -- test/crash/*.test.ts` runs only those.
tools/install-test-deps
if [ $# -gt 0 ]; then
  exec node tools/run-tests.ts "$@"
fi
node tools/ok.ts checks
checks=$?
node tools/run-tests.ts '{src,test,tools,web/src}/**/*.test.ts'
tests=$?
[ -n "$CAIRN_TEST_LONG" ] || echo "CAIRN_TEST_LONG=1 runs every variant of a test, and kills at every failpoint"
[ $checks = 0 ] || echo "the checks failed, see the top" >&2
[ $checks = 0 ] && [ $tests = 0 ]
