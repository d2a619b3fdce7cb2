#!/bin/sh
# Every row of op.def has a case in the op test.
tests=$(ls tests/common/tensor/test_ops*.c 2>/dev/null)
[ "$tests" ] || { echo "skip: tests/common/tensor/test_ops.c is not there yet"; exit 77; }
bad=0
for op in $(sed -n 's/^OP(\([a-z0-9_]*\),.*/\1/p' common/tensor/op.def); do
    grep -qE "(^|[^a-z0-9])(op_)?$op([^a-z0-9_]|\$)" $tests || {
        echo "common/tensor/op.def: $op has no case in" $tests
        bad=1
    }
done
exit $bad
