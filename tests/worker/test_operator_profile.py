"""The table of kernels that torch_npu's profiler leaves, read."""

from __future__ import annotations

from helpers.records.card import Operator
from helpers.worker import operator_profile

# Columns as torch_npu 2.7 and later write them; older ones leave some out.
TABLE = """\
Device_id,Name,Type,OP State,Accelerator Core,Start Time(us),Duration(us),Wait Time(us)
0,aclnnMul_MulAiCore_Mul,Mul,dynamic,AI_VECTOR_CORE,1774670741777000.0,18.5,0.02
0,aclnnMul_MulAiCore_Mul,Mul,dynamic,AI_VECTOR_CORE,1774670741778000.0,21.5,0.02
0,aclnnRightShift_RightShift,RightShift,dynamic,AI_CPU,1774670741779000.0,900,1.0
0,hcom_broadcast_,N/A,N/A,N/A,1774670741790000.0,,0
"""


def test_kernels_are_added_up_by_operator_and_core() -> None:
    rows = operator_profile.read_kernels(TABLE.splitlines())
    assert rows == [
        {"name": "RightShift", "core": "AI_CPU", "calls": 1, "microseconds": 900.0},
        {"name": "Mul", "core": "AI_VECTOR_CORE", "calls": 2, "microseconds": 40.0},
        {"name": "hcom_broadcast_", "core": "N/A", "calls": 1, "microseconds": 0.0},
    ]
    assert [Operator.model_validate(row).slow for row in rows] == [True, False, False]


def test_an_empty_table_has_no_operators() -> None:
    assert operator_profile.read_kernels([]) == []
