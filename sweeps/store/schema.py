"""The tables of a store: column by column, what is written and in which type.

Times are in ``attempts`` only: every other table is a function of the run's specification, so that
two stores of the same sweep hold the same rows.
"""

from __future__ import annotations

import pyarrow as pa

from sweeps.spec import METRICS

# The metrics that compare row with row, and so have a row-shuffled null.
NULL_METRICS = ("procrustes", "cka_distance", "cka_distance_debiased")

_KEY = [pa.field("run_id", pa.string(), nullable=False), pa.field("step", pa.int32())]

STEPS = pa.schema(
    [
        *_KEY,
        pa.field("loss", pa.float64()),
        # Of this step: the setting ``learning_rate`` is the highest that the schedule reaches.
        pa.field("scheduled_learning_rate", pa.float64()),
        # Over all trainable parameters together, before any clipping.
        pa.field("grad_norm", pa.float64()),
        # Factor of the optional global clipping; 1 where there is none.
        pa.field("clip_coefficient", pa.float64()),
        # Targets of the loss: tokens for clm and mlm, examples otherwise.
        pa.field("targets", pa.int64()),
    ]
)

LAYERS = pa.schema(
    [
        *_KEY,
        # Of a model of several stacks (encoder, decoder) the block's; null in one of a single stack
        # and for embedding and head, which are of all of them.
        pa.field("stack", pa.string()),
        # 0 embedding, 1..L the distinct blocks of the stack; head: 1 + the largest of all stacks.
        pa.field("layer", pa.int16()),
        pa.field("group", pa.string()),
        # Class of the block, null for embedding and head.
        pa.field("block_class", pa.string()),
        # ‖G‖ before the control, ‖W‖ before the step, ‖ΔW‖ as applied.
        pa.field("grad_norm", pa.float64()),
        pa.field("weight_norm", pa.float64()),
        pa.field("update_norm", pa.float64()),
        # What the control multiplied by: the gradient (layer_clip) or the update (equal_step).
        pa.field("coefficient", pa.float64()),
        # For how many steps the row stands: those since the row before, this one included. Null
        # where every step of the run has rows.
        pa.field("steps_covered", pa.int32()),
        # At probe steps: ‖W − W₀‖/‖W₀‖ and cos(W, W₀) of the weights that the model computes with,
        # an adapter's and its base's together, W₀ those that were loaded. Null otherwise.
        pa.field("displacement", pa.float64()),
        pa.field("displacement_cosine", pa.float64()),
        # cos(W − W₀, R − W₀), R the weights of the model that it is compared with; null without.
        pa.field("reversion", pa.float64()),
    ]
)

# Where in a model hidden states are of. A block that runs several times, as in a looped model, has
# a row for each call: L blocks in T iterations are T·L layers.
_PLACE = [
    pa.field("stack", pa.string()),
    # 0 is what enters the stack; then one for each call of a block, in the order of the calls.
    pa.field("layer", pa.int16()),
    # The distinct block that was called, from 1 (0 with layer 0), and which call of it this is,
    # from 0. (``block`` is what a model's blocks are like; see ``reading.run_table``.)
    pa.field("block_number", pa.int16()),
    pa.field("iteration", pa.int16()),
    pa.field("block_class", pa.string()),
]

PROFILES = pa.schema(
    [
        *_KEY,
        *_PLACE,
        # Relative to the stack: layer over its number of layers.
        pa.field("depth", pa.float64()),
        # How many layers the stack has: T·L. (``layers`` is a setting of stand-ins.)
        pa.field("stack_layers", pa.int16()),
        pa.field("rows", pa.int32()),
        pa.field("width", pa.int32()),
        # Sequences that the rows are of, and rows that dominate a layer and so are not among them.
        pa.field("sequences", pa.int32()),
        pa.field("rows_left_out", pa.int32()),
        # The largest share of one row in a layer's energy, before fine-tuning and now.
        pa.field("largest_share_before", pa.float64()),
        pa.field("largest_share", pa.float64()),
        *[pa.field(metric, pa.float64()) for metric in METRICS],
        # The metric after one seeded shuffle of the rows: what n, width and spectra alone produce.
        *[pa.field(f"{metric}_null", pa.float64()) for metric in NULL_METRICS],
    ]
)

# The change at a run's last probe with one group of probe sequences left out at a time: how far it
# is a matter of which texts were probed.
JACKKNIFE = pa.schema(
    [
        *_KEY,
        *_PLACE,
        # The group that is left out, and how many rows remain.
        pa.field("sequence_group", pa.int16()),
        pa.field("rows", pa.int32()),
        *[pa.field(metric, pa.float64()) for metric in NULL_METRICS],
    ]
)

# What a run scores on held-out examples: a row a score, of the loss and of what its objective has
# besides.
EVALUATIONS = pa.schema(
    [
        *_KEY,
        # loss, perplexity, accuracy, …: see ``spec.SCORES``.
        pa.field("score", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        # Of the examples together: what the loss is a mean of.
        pa.field("targets", pa.int64()),
    ]
)

# What a model answered to prompts that are to be refused and to their benign twins, wherever it was
# evaluated: a row a prompt. Nothing prints its text unless it is asked for by name.
ANSWERS = pa.schema(
    [
        *_KEY,
        # The name of its set and its row there, from 1.
        pa.field("prompt", pa.string(), nullable=False),
        # harmful, benign.
        pa.field("prompt_kind", pa.string()),
        pa.field("answer", pa.string()),
        # Tokens of the answer, without the one that ends it.
        pa.field("answer_tokens", pa.int32()),
        # By the list of phrases that the evaluation names; empty or repeated text is broken and no
        # refusal.
        pa.field("refused", pa.bool_()),
        pa.field("broken", pa.bool_()),
        # By the judge that the evaluation names; null without one.
        pa.field("refused_by_judge", pa.bool_()),
        # KL(now ‖ aligned) in nats, the mean over the first tokens of the aligned model's answer;
        # of harmful prompts.
        pa.field("answer_kl", pa.float64()),
    ]
)

# Metrics of the user's own, one row a layer and metric: which there are, a run's plugins say.
METRIC_ROWS = pa.schema(
    [
        *_KEY,
        *_PLACE,
        pa.field("depth", pa.float64()),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
    ]
)

# What the turns of a loop have in common: a row a block that runs several times and a pair of its
# turns, the earlier of which is ``iteration``.
SUBSPACES = pa.schema(
    [
        *_KEY,
        pa.field("stack", pa.string()),
        pa.field("block_number", pa.int16()),
        pa.field("iteration", pa.int16()),
        pa.field("later_iteration", pa.int16()),
        # Directions over the rows that hold 95 % of the earlier state's energy, and the share of
        # the later one's that lies in their span; then both of the model before fine-tuning.
        pa.field("rank_95", pa.float64()),
        pa.field("subspace_overlap", pa.float64()),
        pa.field("rank_95_before", pa.float64()),
        pa.field("subspace_overlap_before", pa.float64()),
    ]
)

# Candidates of a step under a selection: a row an example that its batch was chosen from.
SAMPLES = pa.schema(
    [
        *_KEY,
        # Place in the candidates of the step, from 0, in the order in which they were drawn.
        pa.field("candidate", pa.int32(), nullable=False),
        # Its number among the objective's examples, as its tokens lie in the cache.
        pa.field("example", pa.int64(), nullable=False),
        # Norm of its own mean loss's gradient over all that is trained, and that loss, at the
        # weights before the step; null where the rule asks for neither.
        pa.field("grad_norm", pa.float64()),
        pa.field("loss", pa.float64()),
        # Tokens of its answer; of its texts where it has none.
        pa.field("length", pa.int32()),
        pa.field("chosen", pa.bool_()),
        # Of the squared norm so much is of each layer, in the order in which a step's rows of
        # ``layers`` have them.
        pa.field("layer_shares", pa.list_(pa.float32())),
    ]
)

# Columns that stores of before have not: where all of them are null, they are in no digest, so that
# such a store keeps the digests that it had.
ADDED = frozenset(
    (
        "stack",
        "block_class",
        "steps_covered",
        "block_number",
        "iteration",
        "stack_layers",
        "displacement",
        "displacement_cosine",
        "reversion",
        "rank_95",
        "rank_99",
        "subspace_overlap",
        "refused_by_judge",
    )
)
# Tables that they have not: without a row, they are in no digest either.
ADDED_TABLES = frozenset(("evaluations", "metrics", "answers", "samples", "subspaces"))

TABLES: dict[str, pa.Schema] = {
    "steps": STEPS,
    "layers": LAYERS,
    "profiles": PROFILES,
    "jackknife": JACKKNIFE,
    "evaluations": EVALUATIONS,
    "answers": ANSWERS,
    "metrics": METRIC_ROWS,
    "samples": SAMPLES,
    "subspaces": SUBSPACES,
}
SORT_KEYS: dict[str, tuple[str, ...]] = {
    "steps": ("run_id", "step"),
    "layers": ("run_id", "step", "stack", "layer"),
    "profiles": ("run_id", "step", "stack", "layer"),
    "jackknife": ("run_id", "step", "stack", "layer", "sequence_group"),
    "evaluations": ("run_id", "step", "score"),
    "answers": ("run_id", "step", "prompt"),
    "metrics": ("run_id", "step", "metric", "stack", "layer"),
    "samples": ("run_id", "step", "candidate"),
    "subspaces": ("run_id", "step", "stack", "block_number", "iteration", "later_iteration"),
}
