# SPDX-License-Identifier: Apache-2.0
"""Golden values of the distillation objective, made with the reference library.

Made with torch 2.15.0 and transformers 4.57.6 (safetensors 0.8.0); run it again only to
change the fixture: python tests/golden/make_objective.py.  Student and teacher are the
models of the fixture "bart"; batches are padded here as DistilBART's scripts pad them.

  objective/objective.json                 batches, cases: options, terms, weighted loss
  objective/expect/model.safetensors       CASE.PARAMETER: gradients of a few parameters
"""
import json
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import BartForConditionalGeneration

HERE = os.path.dirname(os.path.abspath(__file__))
PAD, EOS, V, H, T = 1, 2, 53, 16, 2.0
ENC_MATCHES, DEC_MATCHES = [0, 2], [1, 2]
PARAMETERS = ["model.shared.weight", "model.encoder.layernorm_embedding.weight",
              "model.encoder.layers.0.fc1.bias", "model.encoder.layers.1.self_attn.v_proj.weight",
              "model.decoder.layers.0.encoder_attn.q_proj.weight",
              "model.decoder.layers.1.final_layer_norm.bias"]

# weights: alpha_ce, alpha_mlm, alpha_hid
CASES = [
    dict(name="ce", batch="ragged", weights=[1, 0, 0]),
    dict(name="mlm", batch="ragged", weights=[0, 1, 0], smoothing=0.1),
    dict(name="plain", batch="ragged", weights=[0.8, 0.2, 3]),
    dict(name="normalized", batch="ragged", weights=[0.8, 0.2, 3], smoothing=0.1, normalize=True),
    dict(name="compat", batch="ragged", weights=[0.8, 0.2, 3], smoothing=0.1, compat=True),
    dict(name="compat_mean", batch="ragged", weights=[0.8, 0.2, 0], compat=True),
    dict(name="compat_block", batch="equal", weights=[0.8, 0.2, 3], normalize=True, compat=True),
]


def pad_rows(rows):
    width = max(map(len, rows))
    return torch.tensor([r + [PAD] * (width - len(r)) for r in rows])


def shift(labels):
    """Labels one to the right, the last real one in front."""
    last = (labels != PAD).sum(1, keepdim=True) - 1
    return torch.cat([labels.gather(1, last), labels[:, :-1]], 1)


def batch_of(lengths, seed):
    gen = torch.Generator().manual_seed(seed)

    def row(n):
        return torch.randint(4, V, (n,), generator=gen).tolist()

    return dict(source=[row(ns) for ns, _ in lengths],
                labels=[row(nt - 1) + [EOS] for _, nt in lengths])


def term(mask, s, t, normalize, compat):
    if normalize:
        shape = s.shape if compat else s.shape[-1:]  # one block, or each position
        s, t = F.layer_norm(s, shape), F.layer_norm(t, shape)
    return (((s - t) ** 2) * mask[..., None]).sum() / (mask.sum() * H)


def terms_of(case, student, teacher, b):
    compat, normalize = case.get("compat", False), case.get("normalize", False)
    eps = case.get("smoothing", 0)
    src, y = pad_rows(b["source"]), pad_rows(b["labels"])
    m_src, d = (src != PAD).long(), shift(y)
    m_lab = y != PAD
    m_kd = d != PAD if compat else m_lab
    args = dict(attention_mask=m_src, decoder_input_ids=d, use_cache=False, output_hidden_states=True)
    s = student(input_ids=src, **args)
    with torch.no_grad():
        t = teacher(input_ids=src, **args)
        t_enc = t.encoder_hidden_states
        if compat:
            t = teacher(encoder_outputs=(s.encoder_last_hidden_state.detach(),), **args)
    z, zt = s.logits.double(), t.logits.double()
    ce = T * T * F.kl_div(F.log_softmax(z[m_kd] / T, -1), F.log_softmax(zt[m_kd] / T, -1),
                          log_target=True, reduction="sum") / m_kd.sum()
    logp = F.log_softmax(z[m_lab], -1)
    nll, smooth = -logp.gather(1, y[m_lab][:, None]).sum(), -logp.sum()
    mlm = (1 - eps) * nll + eps / V * smooth
    if not (compat and eps > 0):
        mlm = mlm / m_lab.sum()
    first = 0 if compat else 1  # entry k of the list is what goes into layer k
    hid = [sum(term(m, hs[k + first].double(), ht[j + first].double(), normalize, compat)
               for k, j in enumerate(matches))
           for m, hs, ht, matches in ((m_src, s.encoder_hidden_states, t_enc, ENC_MATCHES),
                                      (m_kd, s.decoder_hidden_states, t.decoder_hidden_states,
                                       DEC_MATCHES))]
    return dict(ce=ce, mlm=mlm, hid_enc=hid[0], hid_dec=hid[1])


def main():
    student = BartForConditionalGeneration.from_pretrained(HERE + "/bart").eval()
    teacher = BartForConditionalGeneration.from_pretrained(HERE + "/bart/teacher").eval()
    batches = dict(ragged=batch_of([(5, 4), (1, 1), (11, 8), (8, 10)], 31),
                   equal=batch_of([(7, 6), (7, 6), (7, 6)], 32))
    for b in batches.values():
        d = shift(pad_rows(b["labels"]))
        b["decoder_compat"] = [[i for i in r if i != PAD] for r in d.tolist()]
    expect, cases = {}, []
    for case in CASES:
        student.zero_grad()
        terms = terms_of(case, student, teacher, batches[case["batch"]])
        a_ce, a_mlm, a_hid = case["weights"]
        loss = a_ce * terms["ce"] + a_mlm * terms["mlm"] + a_hid * (terms["hid_enc"] + terms["hid_dec"])
        loss.backward()
        cases.append(dict(case, loss=loss.item(), terms={k: v.item() for k, v in terms.items()}))
        for name, p in student.named_parameters():
            if name in PARAMETERS:
                expect[case["name"] + "." + name] = p.grad.clone()
    os.makedirs(HERE + "/objective/expect", exist_ok=True)
    save_file(expect, HERE + "/objective/expect/model.safetensors", metadata={"format": "pt"})
    with open(HERE + "/objective/objective.json", "w") as f:
        json.dump(dict(batches=batches, cases=cases, encoder_matches=ENC_MATCHES,
                       decoder_matches=DEC_MATCHES, temperature=T), f)


main()
