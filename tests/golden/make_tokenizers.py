# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers and what the reference library makes of awkward text with them.

Writes tests/golden/tokenizers/NAME/ (the tokenizer's files) with expected.json (ids,
decoded text, truncated ids), and texts.json, which all share.  tokenizer_kinds.py makes
them, out of its own sentences.  Needs transformers 4.57.6, tokenizers 0.22, sentencepiece
0.2.3, sacremoses 0.2.0, protobuf.

    python tests/golden/make_tokenizers.py

A tokenizer that is there is kept, and what is expected of it made again, since the
trainers of the tokenizers library do not train the same one twice (ties go by the order
of a hash table).  Take its directory away to have another trained.
"""
import json
import os

import tokenizer_kinds as kinds
from transformers import AutoTokenizer

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizers")
NAMES = """
unigram_json bpe_split_json bpe_whole_json bpe_suffix_json bpe_prefix_json bpe_fallback_json word_piece_json word_level_json
split_previous_json split_next_json split_empty_json byte_words_json bert bert_cased bart roberta t5 t5_bpe pegasus mbart mbart50
marian_codes marian_two fsmt_en_de fsmt_de_en fsmt_ru_en_lower fsmt_fr_fr
""".split()
VOCAB = {"t5_bpe": 400, "bart": 500, "bpe_fallback_json": 480, "bpe_split_json": 400, "bpe_whole_json": 400}


def as_json(source, name, **config):
    """The fast kind of the directory SOURCE as a tokenizer.json alone."""
    path = os.path.join(HERE, name)
    os.makedirs(path, exist_ok=True)
    AutoTokenizer.from_pretrained(os.path.join(HERE, source)).backend_tokenizer.save(
        os.path.join(path, "tokenizer.json"), pretty=False)
    kinds.write_json(path, "tokenizer_config.json", config)


def expect(kind, path, texts):
    t = AutoTokenizer.from_pretrained(path)
    accepted = [x for x in texts if kind is None or kind.accepts(x)]
    ids = t(accepted)["input_ids"]
    decoded = t.batch_decode(ids, skip_special_tokens=True)
    known = dict(zip(accepted, zip(ids, decoded)))
    out = {
        "size": len(t), "eos": t.sep_token_id if "fsmt" in path else t.eos_token_id, "pad": t.pad_token_id,
        "bos": t.bos_token_id, "ids": [known.get(x, (None,))[0] for x in texts],
        "decoded": [known.get(x, (None, None))[1] for x in texts],
        "truncated_7": t(texts[-13:], truncation=True, max_length=7)["input_ids"],
    }
    if kind and "target" in kind.sides:
        out["target"] = t(text_target=texts)["input_ids"]
    with open(os.path.join(path, "expected.json"), "w", encoding="utf-8") as f:
        json.dump(out, f, ensure_ascii=True, separators=(",", ":"))
    print(os.path.basename(path), len(t))


def main():
    os.makedirs(HERE, exist_ok=True)
    texts = kinds.AWKWARD + kinds.SENTENCES[:26:2]
    with open(os.path.join(HERE, "texts.json"), "w", encoding="utf-8") as f:
        json.dump(texts, f, ensure_ascii=True, indent=0)
    known = {k.name: k for k in kinds.KINDS}
    for name in NAMES:
        path = os.path.join(HERE, name)
        if not os.path.exists(path):
            os.makedirs(path)
            known[name].make(path, kinds.SENTENCES, VOCAB.get(name, 300))
        expect(known[name], path, texts)
    as_json("t5", "t5_json", tokenizer_class="T5Tokenizer", extra_ids=7)
    expect(None, os.path.join(HERE, "t5_json"), texts)
    as_json("bart", "bart_json", tokenizer_class="BartTokenizer", add_prefix_space=True, clean_up_tokenization_spaces=True)
    expect(None, os.path.join(HERE, "bart_json"), texts)


if __name__ == "__main__":
    main()
