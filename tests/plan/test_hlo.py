"""The reader of compiled programs, on lines as the TPU compiler writes them."""

import pytest

from vitjax.plan.collectives import collectives, feature_moves
from vitjax.plan.hlo import moved_bytes, num_bytes, parse, product_flops

# Two layers of lines: a fused matrix product over 32 samples, a loop of five turns, collectives in
# the notations of several compiler versions.
PROGRAM = """\
HloModule jit_train_step, is_scheduled=true

%fused_product (a: bf16[32,196,768], b: bf16[768,3072]) -> bf16[32,196,3072] {
  %a = bf16[32,196,768]{2,1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[768,3072]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.1 = bf16[32,196,3072]{2,1,0:T(8,128)(2,1)} convolution(%a, %b), \
window={size=1}, dim_labels=0bf_io0->0bf, metadata={op_name="jit(train_step)/dot_general"}
}

%fused_attention (q: bf16[32,196,12,64], k: bf16[32,196,12,64]) -> f32[32,12,196,196] {
  %q = bf16[32,196,12,64]{1,3,2,0:T(8,128)(2,1)} parameter(0)
  %k = bf16[32,196,12,64]{1,3,2,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.2 = f32[32,12,196,196]{3,2,1,0:T(8,128)} convolution(%q, %k), \
window={size=32x12 stride=31x11 lhs_dilate=32x12}, dim_labels=0b1f_0o1i->01bf
}

%body (state: (s32[], f32[128])) -> (s32[], f32[128]) {
  %state = (s32[], f32[128]{0}) parameter(0)
  %value = f32[128]{0} get-tuple-element(%state), index=1
  %all-reduce.9 = f32[128]{0} all-reduce(%value), channel_id=3, \
replica_groups={{0,1},{2,3},{4,5},{6,7}}, use_global_device_ids=true, to_apply=%add
  %count = s32[] get-tuple-element(%state), index=0
  ROOT %next = (s32[], f32[128]{0}) tuple(%count, %all-reduce.9)
}

ENTRY %main (p0: bf16[32,196,768], p1: bf16[768,3072]) -> bf16[32,196,3072] {
  %p0 = bf16[32,196,768]{2,1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[768,3072]{1,0:T(8,128)(2,1)} parameter(1)
  %w = f32[1000]{0:T(1024)} parameter(2)
  %state.1 = (s32[], f32[128]{0}) parameter(3)
  %all-reduce.1 = (f32[1000]{0:T(1024)}, f32[1000]{0:T(1024)}) all-reduce(%w, /*index=1*/%w), \
channel_id=1, replica_groups=mesh['data'=2,'fsdp'=4] {'data'}, use_global_device_ids=true
  %all-gather-start.1 = (f32[1000]{0}, f32[4000]{0}) all-gather-start(%w), channel_id=2, \
replica_groups=[2,4]<=[8], dimensions={0}
  %reduce-scatter.1 = f32[250]{0} reduce-scatter(%w), replica_groups=[4,2]<=[2,4]T(1,0), \
dimensions={0}
  %permute = f32[1000]{0} collective-permute(%w), source_target_pairs={{0,1},{1,2},{2,3}}
  %while.1 = (s32[], f32[128]{0}) while(%state.1), condition=%cond, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  ROOT %fusion.1 = bf16[32,196,3072]{2,1,0:T(8,128)(2,1)} fusion(%p0, %p1), kind=kOutput, \
calls=%fused_product
}
"""


def test_products_are_counted_inside_fusions() -> None:
    program = parse(PROGRAM)
    entry = program.computations[program.entry]
    assert product_flops(program, "main", entry["fusion.1"]) == 2 * 32 * 196 * 768 * 3072
    attention = program.computations["fused_attention"]["convolution.2"]
    assert product_flops(program, "fused_attention", attention) == 2 * 32 * 12 * 196 * 196 * 64


CONDITION = """\
%cond (state: (s32[], f32[128])) -> pred[] {
  %state = (s32[], f32[128]{0}) parameter(0)
  %count = s32[]{:T(256)} get-tuple-element(%state), index=0
  %bound = s32[]{:T(256)} constant(16)
  ROOT %lt = pred[]{:T(1024)} compare(%count, %bound), direction=LT
}
"""
FUSED_CONDITION = """\
%fused_compare (count: s32[]) -> pred[] {
  %count = s32[]{:T(256)} parameter(0)
  %bound = s32[]{:T(256)} constant(16)
  ROOT %lt = pred[]{:T(1024)} compare(%count, %bound), direction=LT
}

%cond (state: (s32[], f32[128])) -> pred[] {
  %state = (s32[], f32[128]{0}) parameter(0)
  %count = s32[]{:T(256)} get-tuple-element(%state), index=0
  ROOT %compare = pred[]{:T(1024)} fusion(%count), kind=kLoop, calls=%fused_compare
}
"""


@pytest.mark.parametrize("condition", [CONDITION, FUSED_CONDITION])
def test_a_loops_turns_are_read_off_its_condition(condition: str) -> None:
    assert parse(PROGRAM).loops() == {"main": 1, "body": 5}
    head, rest = PROGRAM.split("\n\n", 1)
    program = f"{head}\n\n{condition}\n{rest}"
    assert parse(program).loops() == {"main": 1, "body": 5}
    silent = program.replace('backend_config={"known_trip_count":{"n":"5"}}', "metadata={}")
    assert parse(silent).loops() == {"main": 1, "body": 16}


STACKS = """\
HloModule jit_train_step, is_scheduled=true

%fused_slice (stack: bf16[12,768,3072], turn: s32[]) -> bf16[1,768,3072] {
  %stack = bf16[12,768,3072]{2,1,0} parameter(0)
  %turn = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = bf16[1,768,3072]{2,1,0} dynamic-slice(%stack, %turn, %zero, %zero), \
dynamic_slice_sizes={1,768,3072}
}

%fused_layer (x: bf16[32,768], stack: bf16[12,768,3072], turn: s32[], kept: bf16[12,32,3072]) -> \
(bf16[12,32,3072], bf16[32,3072]) {
  %x = bf16[32,768]{1,0} parameter(0)
  %weights = bf16[12,768,3072]{2,1,0} parameter(1)
  %turn = s32[] parameter(2)
  %kept = bf16[12,32,3072]{2,1,0} parameter(3)
  %zero = s32[] constant(0)
  %row = bf16[1,768,3072]{2,1,0} fusion(%weights, %turn), kind=kLoop, calls=%fused_slice
  %kernel = bf16[768,3072]{1,0} bitcast(%row)
  %convolution = bf16[32,3072]{1,0} convolution(%x, %kernel), dim_labels=bf_io->bf
  %update = bf16[1,32,3072]{2,1,0} bitcast(%convolution)
  %new = bf16[12,32,3072]{2,1,0} dynamic-update-slice(%kept, %update, %turn, %zero, %zero)
  ROOT %out = (bf16[12,32,3072]{2,1,0}, bf16[32,3072]{1,0}) tuple(%new, %convolution)
}

ENTRY %main (x: bf16[32,768], stack: bf16[12,768,3072], turn: s32[], kept: bf16[12,32,3072]) -> \
bf16[32,3072] {
  %x = bf16[32,768]{1,0} parameter(0)
  %stack = bf16[12,768,3072]{2,1,0} parameter(1)
  %turn = s32[] parameter(2)
  %kept = bf16[12,32,3072]{2,1,0} parameter(3)
  %layer = (bf16[12,32,3072]{2,1,0}, bf16[32,3072]{1,0}) fusion(%x, %stack, %turn, %kept), \
kind=kOutput, calls=%fused_layer
  %old = bf16[1,32,3072]{2,1,0} dynamic-slice(%kept, %turn), dynamic_slice_sizes={1,32,3072}
  ROOT %sum = bf16[32,3072]{1,0} add(%old, %old)
}
"""


def test_of_stacks_only_the_turns_part_moves() -> None:
    program = parse(STACKS)
    moved = {i.name: moved_bytes(program, "main", i) for i in program.computations["main"].values()}
    turn, x, weights, hidden = 4, 32 * 768 * 2, 768 * 3072 * 2, 32 * 3072 * 2
    assert moved["layer"] == x + weights + turn + hidden + hidden
    assert moved["old"] == hidden + turn + hidden
    assert moved["sum"] == 2 * hidden


def test_bytes_with_and_without_the_tiles_padding() -> None:
    assert num_bytes("bf16[32,12,196,196]{3,2,1,0:T(8,128)(2,1)}") == 32 * 12 * 196 * 196 * 2
    tiled = num_bytes("bf16[32,12,196,196]{3,2,1,0:T(8,128)(2,1)}", padded=True)
    assert tiled == 32 * 12 * 200 * 256 * 2
    assert num_bytes("(f32[3]{0}, s32[], pred[2,2]{1,0})") == 12 + 4 + 4


def test_collectives_by_axis_with_turns_of_loops() -> None:
    found = collectives(parse(PROGRAM), {"data": 2, "fsdp": 4})
    seen = {(c.kind, c.axes): (c.group, c.count, c.bytes) for c in found}
    assert seen == {
        ("all-reduce", ("data",)): (2, 1, 8000),
        ("all-gather", ("fsdp",)): (4, 1, 16000),
        ("reduce-scatter", ("data",)): (2, 1, 4000),
        ("collective-permute", ("fsdp",)): (2, 1, 4000),
        ("all-reduce", ("fsdp",)): (2, 5, 5 * 512),
    }
    reduced = next(c for c in found if c.kind == "all-reduce" and c.group == 2 and c.count == 1)
    assert reduced.seconds(links=1000.0) == pytest.approx(8.0)  # 2 · 1/2 · 8000 / 1000


def test_only_large_gathers_are_named() -> None:
    text = """\
ENTRY %main (table: f32[169,4]) -> f32[49,49,4] {
  %table = f32[169,4]{1,0} parameter(0)
  %index = s32[49,49]{1,0} parameter(1)
  %small = f32[49,49,4]{2,1,0} gather(%table, %index), offset_dims={2}
  %map = f32[64,14,14,384]{3,2,1,0} parameter(2)
  %points = s32[64,49,3]{2,1,0} parameter(3)
  %sampled = f32[64,49,384]{2,1,0} gather(%map, %points), offset_dims={2}
  ROOT %back = f32[64,14,14,384]{3,2,1,0} scatter(%map, %points, %sampled), to_apply=%add
}
"""
    assert [i.name for i in feature_moves(parse(text), 49 * 49 * 4)] == ["sampled", "back"]
