#!/bin/sh
# part.sh COUNT COMMAND...: runs a part of the suite. Its last "N passed, N failed" goes to the file COUNT, for
# total.sh. A part without such a line counts as one check, which passes if the exit status is 0.
count=$1
shift
mkdir -p "$(dirname "$count")"
"$@" >"$count.log" 2>&1
status=$?
line=$(grep -o '[0-9]* passed, [0-9]* failed' "$count.log" | tail -n 1)
case $line in
*' 0 failed') [ $status = 0 ] || line='0 passed, 1 failed' ;;
'') if [ $status = 0 ]; then line='1 passed, 0 failed'; else line='0 passed, 1 failed'; fi ;;
esac
case $line in
*' 0 failed') echo "ok   $(basename "$count" .count): $line" ;;
*) grep -v '^ok ' "$count.log"
    echo "FAIL $(basename "$count" .count): $line (exit $status)" ;;
esac
echo "$line" >"$count"
