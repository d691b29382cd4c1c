"""Two ranks that are given their parts of a model with large layers.

``python tests/rank_scripts/memory_of_ranks.py FOLDER STAGE`` in each. The first rank has the
weights, the other a model without content. What each process held at the most on the way to its
part of the weights, over what it held before, is left in FOLDER.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from sweeps.spec import Execution
from workers.engines import deepspeed_weights
from workers.engines.deepspeed import _deepspeed, configuration
from workers.ranks.process_group import Ranks, connect
from workers.ranks.rank_process import end_process

# 512 MiB in float32; what malloc gets of the system, piece by piece, it gives back at once.
LAYERS, WIDTH = 8, 4096
WHOLE = 4 * LAYERS * WIDTH**2


def held(of="VmRSS"):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{of}:"):
            return 1024 * int(line.split()[1])
    raise AssertionError(of)


def main():
    torch.set_num_threads(1)
    folder, stage = Path(sys.argv[1]), int(sys.argv[2])
    ranks, device = Ranks.from_environment(), torch.device("cpu")
    _deepspeed(device)
    connect(ranks, device)
    execution = Execution(engine="deepspeed", processes=2, zero_stage=stage)
    config = configuration(execution, "fp32", device)
    ranks.all_say(None)
    with torch.device("cpu" if ranks.leads else "meta"):
        model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    before = held()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    if stage == 3:
        deepspeed_weights.cut(model, torch.float32, config, ranks, device)
    else:
        deepspeed_weights.place(model, torch.float32, ranks, device)
    found = {"peak": held("VmHWM") - before, "now": held() - before}
    (folder / f"{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    end_process()
