# SPDX-License-Identifier: Apache-2.0
"""Writes NAME/beams.json like tests/golden/make_models.py, for other and more sources: python
decode_beams.py OUT_DIR SOURCES [NAME...].  Nothing of it is kept."""
import json
import os
import sys

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import make_models as mm
from group_beams import penalise_every_beam


def outputs(c, model, sources, options):
    if any(k.startswith("encoder_") for k in options):  # where pads would count
        parts = [mm.generate(c, model, [s], options) for s in sources]
        return (sum((p[0] for p in parts), []), sum((p[1] or [] for p in parts), []),
                parts[0][2])
    return mm.generate(c, model, sources, options)


def main():
    out, n, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:] or list(mm.CASES)
    penalise_every_beam()
    for name in names:
        c = mm.CASES[name]
        eos = mm.ids_of(c)[2]
        model = mm.model_of(c, c["layers"], c["seed"])
        gen = torch.Generator().manual_seed(900 + c["seed"])
        lengths = torch.randint(1, 24, (n,), generator=gen).tolist()
        sources = [torch.randint(3, c.get("V_src", c["V"]), (k,), generator=gen).tolist() + [eos]
                   for k in lengths]
        mm.only_options(c, model)
        cases = []
        for options in mm.options_for(c):
            ids, scores, full = outputs(c, model, sources, options)
            cases.append(dict(options=full, sources=sources, outputs=ids, scores=scores or None))
        os.makedirs(os.path.join(out, name))
        with open(os.path.join(out, name, "beams.json"), "w") as f:
            json.dump(cases, f)


if __name__ == "__main__":
    main()
