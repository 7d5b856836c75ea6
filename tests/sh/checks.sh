#!/bin/sh
# checks.sh FILE...: the runner's list (checks.h) of every `void test_NAME(void)` in the files; SLOW where the line above it is the
# comment "slow".
echo '#define CHECKS(X) \'
awk '/^void test_[a-zA-Z0-9_]*\(void\)/ {
        name = $2
        sub(/\(void\).*/, "", name)
        print "    X(" name ", " (last ~ /^\/\* slow \*\// ? "SLOW" : "FAST") ") \\"
    }
    { last = $0 }' "$@"
echo
