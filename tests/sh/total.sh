#!/bin/sh
# total.sh COUNT...: adds up the "N passed, N failed" lines of the parts of the suite; prints the sum. Exit 1 if any failed.
cat "$@" | awk '/^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 } END { print passed + 0 " passed, " failed + 0 " failed"; exit failed > 0 || !passed }'
