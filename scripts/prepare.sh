# Sourced by start, test and ringstead: finds or fetches what this program runs on. POSIX sh; messages go to standard error.
# Sets NODE, the Node 24 of node_modules.

checkout=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
is_root() { [ "$(id -u)" = 0 ]; }
is_debian() { [ -e /etc/debian_version ] && command -v apt-get >/dev/null 2>&1; }

# Runs "$@" as root: through sudo only when --install asked for it.
as_root() {
  if is_root; then "$@"; else sudo "$@"; fi
}

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends "$@"; }

# Installs Debian packages so that nothing of theirs starts and no unit stays enabled.
apt_install() {
  policy=/usr/sbin/policy-rc.d
  mine=
  units_before=$(systemctl list-unit-files --state=enabled --no-legend 2>/dev/null | awk '{ print $1 }')
  if [ ! -e "$policy" ]; then
    mine=yes
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy" || return 1
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    trap 'exit 130' INT TERM
  fi
  say "installing Debian packages: $*"
  said=$(apt_get install "$@" 2>&1)
  status=$?
  if [ $status != 0 ]; then
    # Most often the lists of packages are absent or old; what apt-get says is of use only when this fails too.
    said=$(as_root apt-get update 2>&1 && apt_get install "$@" 2>&1)
    status=$?
    [ $status = 0 ] || say "$said"
  fi
  if [ "$mine" = yes ]; then
    as_root rm -f "$policy"
    trap - EXIT INT TERM
  fi
  if command -v systemctl >/dev/null 2>&1; then
    systemctl list-unit-files --state=enabled --no-legend 2>/dev/null | awk '{ print $1 }' | while read -r unit; do
      printf '%s\n' "$units_before" | grep -qxF "$unit" || as_root systemctl disable "$unit" >/dev/null 2>&1
    done
  fi
  return $status
}

# Packages of the services in $1 (comma list) that are not installed.
missing_packages() {
  awk -v wanted=",$1," '!/^#/ && NF == 2 && index(wanted, "," $2 ",") { print $1 }' "$checkout/scripts/system-packages.txt" |
    while read -r package; do
      dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || printf '%s ' "$package"
    done
}

# Installs what the services in $1 need, when root or when $2 is "yes"; else names the packages and goes on.
need_packages() {
  is_debian || return 0
  packages=$(missing_packages "$1")
  [ -n "$packages" ] || return 0
  if is_root || [ "${2:-}" = yes ]; then
    # shellcheck disable=SC2086 # a list of names
    apt_install $packages || say "these packages could not be installed: $packages"
  else
    say "missing packages for $1: run: sudo apt-get install --no-install-recommends $packages"
  fi
}

node_major() { node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0; }

# Any Node from 18 and npm do; they only fetch the pinned Node 24.
need_npm() {
  if [ "$(node_major)" -ge 18 ] && command -v npm >/dev/null 2>&1; then return 0; fi
  if ! is_debian || { ! is_root && [ "$1" != yes ]; }; then
    fail "Ringstead needs Node 18 or newer and npm to install itself; on Debian: sudo apt-get install --no-install-recommends nodejs npm"
  fi
  apt_install nodejs npm ca-certificates || fail "nodejs and npm could not be installed; see the messages of apt-get above"
}

# The binary that the package "node" brought. Its install script puts it into bin/; where npm did not run that script, it is
# run here, and where that fails too, the package of the platform may still be there.
find_node() {
  for candidate in "$checkout/node_modules/node/bin/node" \
    "$checkout"/node_modules/node/node_modules/node-*/bin/node \
    "$checkout"/node_modules/node-linux-*/bin/node \
    "$checkout"/node_modules/node-bin-*/bin/node; do
    if [ -x "$candidate" ] && "$candidate" -e 0 >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  return 1
}

# For commands that must work, and at once, on whatever is installed: true where that can be run at all.
have_modules() {
  [ -s "$checkout/node_modules/.ringstead-installed" ] && NODE=$(find_node)
}

# Runs a script of this program in place of this shell. Node keeps the code it has compiled: without that, each process loads a TypeScript
# compiler of its own, which costs it 20 MB and half a second.
run_node() {
  export NODE_COMPILE_CACHE="$checkout/node_modules/.cache/ringstead-compiled"
  exec "$NODE" --disable-warning=ExperimentalWarning "$@"
}

# Installs the packages of the lock: $1 is "production" or "all". $2 "yes": system packages may be installed through sudo.
need_modules() {
  wanted=$(cat "$checkout/package-lock.json" "$checkout/package.json" | sha256sum | cut -c1-32)
  stamp="$checkout/node_modules/.ringstead-installed"
  have=$(cat "$stamp" 2>/dev/null || true)
  if [ "$have" = "all $wanted" ] || { [ "$1" = production ] && [ "$have" = "production $wanted" ]; }; then
    NODE=$(find_node) && return 0
  fi
  mkdir -p "$checkout/node_modules"
  # Two starts at once must not install over each other; the second finds the stamp.
  if command -v flock >/dev/null 2>&1 && [ "${RINGSTEAD_INSTALLING:-}" != yes ]; then
    exec 9>"$checkout/node_modules/.ringstead-installing"
    flock 9
    RINGSTEAD_INSTALLING=yes
    need_modules "$1" "$2"
    exec 9>&-
    return 0
  fi
  need_npm "$2"
  scope=$1
  # Development packages that are there stay: a start must not prune a developer's tools.
  [ ! -d "$checkout/node_modules/vitest" ] || scope=all
  omit=
  [ "$scope" = all ] || omit=--omit=dev
  say "installing npm packages ($scope) …"
  log="$checkout/node_modules/.ringstead-npm.log"
  # --no-save: an older npm would rewrite the lock. Not `npm ci`: it fails on the lock's optional binaries.
  # Short waits between tries: a registry that cannot be reached is told within a minute or two, not after a quarter of an hour.
  # shellcheck disable=SC2086 # nothing or one word
  if ! (cd "$checkout" && npm install --no-save --no-audit --no-fund --loglevel=error --fetch-retry-mintimeout=1000 \
    --fetch-retry-maxtimeout=5000 $omit >"$log" 2>&1 </dev/null); then
    cat "$log" >&2
    fail "npm install failed; the messages are above. Once the cause is gone, run this again."
  fi
  if ! find_node >/dev/null && [ -e "$checkout/node_modules/node/installArchSpecificPackage.js" ]; then
    (cd "$checkout/node_modules/node" && node installArchSpecificPackage.js >>"$log" 2>&1 </dev/null) || true
  fi
  NODE=$(find_node) || fail "the npm package \"node\" brought no binary for this machine ($(uname -sm)); see $log"
  mkdir -p "$checkout/node_modules/.bin"
  [ -x "$checkout/node_modules/.bin/node" ] || ln -sf "$NODE" "$checkout/node_modules/.bin/node"
  # A first start then finds its code compiled as every later one does.
  (run_node "$checkout/scripts/compile-code.ts") || true
  printf '%s %s\n' "$scope" "$wanted" >"$stamp"
}
