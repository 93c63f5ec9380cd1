#!/bin/sh
# The life of a service: orlop starts it detached, the script fetches a page, looks at it, stops it, and deletes it.
# $ORLOP is the runtime.
set -eu
cd "$(dirname "$0")/server"
runtime=${ORLOP:?the runtime to use}
name=orlop-demo-server

show() {
    echo
    echo "# orlop $*"
    "$runtime" "$@"
}
cleanup() { "$runtime" delete --force "$name" >/dev/null 2>&1 || true; }
cleanup # left by an interrupted demo
trap cleanup EXIT

log=$(mktemp)
echo "# orlop run --detach $name"
# The server must not keep this script's terminal or pipes: it outlives their readers.
"$runtime" run --detach "$name" < /dev/null > "$log" 2>&1 || { cat "$log"; exit 1; }
echo
echo "# GET http://127.0.0.1:18080/"
tries=50
until page=$(busybox wget -q -O - http://127.0.0.1:18080/ 2>/dev/null); do
    tries=$((tries - 1))
    if [ "$tries" = 0 ]; then
        echo "the server does not answer; it says:" >&2
        cat "$log" >&2
        exit 1
    fi
    sleep 0.1
done
echo "$page"
show ps "$name"
show exec "$name" sh -c 'id; grep -E "^(NoNewPrivs|Seccomp|CapEff):" /proc/self/status; touch /here 2>&1 || true; df /tmp | tail -1'
show state "$name"
show kill "$name" TERM
tries=50
until "$runtime" state "$name" | grep -q '"status": "stopped"'; do
    tries=$((tries - 1))
    [ "$tries" != 0 ] || { echo "the server does not stop" >&2; exit 1; }
    sleep 0.1
done
show delete "$name"
trap - EXIT
rm -f "$log"
if busybox wget -q -O /dev/null http://127.0.0.1:18080/ 2>/dev/null; then
    echo "a server still answers" >&2
    exit 1
fi
echo
echo "served, stopped and deleted"
