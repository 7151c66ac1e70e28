# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers and what the reference library makes of awkward text with them.

Writes tests/golden/tokenizers/NAME/ (the tokenizer's files) with expected.json (ids,
decoded text, truncated ids), and texts.json, which all share.  Everything is trained on
the sentences below.  Needs transformers 4.57, tokenizers, sentencepiece, protobuf.

    python tests/golden/make_tokenizers.py
"""
import io
import json
import os
import shutil
import tempfile

import sentencepiece
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizers")

SENTENCES = """
The harbour wakes before the town does.
Boats leave one after another, and the gulls follow them out to sea.
By nine o'clock the market is full; by noon it's almost empty again.
She doesn't sell fish on Mondays, she'll tell you, because nobody buys it.
A kilo costs 12.50, or 3,75 for the small ones that they've caught at night.
"Is this fresh?" asks a visitor. "Fresher than you!" says the old man.
He has repaired nets since 1962 and he isn't going to stop now.
The lighthouse, built in 1887, was automated in the 1990s.
Its lamp turns every 15 seconds and can be seen from 20 miles away.
Children are told that the keeper's dog still walks the stairs.
In winter the storms come from the north-west and the quay disappears.
Then the boats are pulled up, the shutters closed, and the town waits.
Letters arrive late, newspapers not at all, and the radio crackles.
Some read, some mend, some sleep; the baker keeps on baking.
Bread is the one thing that never ran out, not even in the great storm.
When spring returns the painters arrive with their easels and hats.
They paint the harbour in blue, in grey, in gold, and always too large.
Nobody minds: the paintings pay for the paint on the boats.
The ferry takes forty minutes, twice a day, weather permitting.
On the other side there is a railway station and a cinema.
People who leave say that they will come back, and many of them do.
Le port se réveille avant la ville, et les bateaux s'en vont.
Die Möwen folgen ihnen hinaus aufs Meer, wie an jedem Morgen.
El faro fue construido en 1887; su luz gira cada quince segundos.
Łódź, Malmö, Århus, Besançon and Čakovec are all on the visitors' map.
Гавань просыпается раньше города.
港は町より先に目を覚ます。
Prices: 1 EUR = 100 cents; 5 + 7 = 12; a_b != c-d; x/y; #tag; user@example.org.
========== ---------- ... !!! ??? ~~~~ **** #### ((())) [[x]] {{y}}
""".strip().split("\n")

AWKWARD = [
    "", " ", "  ", "   a", "a   ", "a  b   c", "\ttab\tx\t", "line\nbreak", "cr\rlf\r\nx",
    "\r\n", "\n", "nbsp\u00a0x", "\u00a0", "ＡＢＣ　１２３！", "ﬁne ﬂag", "e\u0301t\u0301 é",
    "n\u0303o", "a\u0300\u0301\u0302 stacked", "🙂 ok 👨‍👩‍👧 x 🏳️‍🌈", "🇩🇪🇫🇷", "❤️ ❤", "👍🏽",
    "中文字符，没有空格。", "港は町より カタカナ ｶﾀｶﾅ", "か\u3099き", "한국어 \u1100\u1161\u11a8",
    "العربية نص", "עִבְרִית", "क्षेत्र", "ไทย", "\u200bzero\u200bwidth\u200d", "\u2060\ufeffx",
    "\u0001\u0002 control \u007f \u0085 x", "a\u00adb", "▁ mark", "▁▁a▁b ▁ c", "a ▁b", "</s>",
    "a</s>b", "a </s> b", "</s> x", " </s>", "</s></s>", "<pad>", "x <unk> y", "<s> x </s>",
    "<extra_id_0> y <extra_id_1>", "x<extra_id_1>y", "<extra_id_0", "<mask>", "a   <mask>   b",
    "en_XX de_DE x", "<|endoftext|> x", "word<|endoftext|>", "'s 't it's don't I'LL we'll",
    "don't   'll", "1234567890 12,345.67", "x² ½ Ⅳ", "a1b2c3", "foo_bar __init__",
    "===== ======= -----------", "a" * 40, "-" * 67, "=" * 33, "ab" * 21, " " * 20,
    "x" + " " * 9 + "y", "http://example.org/~x?a=b&c=d#e", "C++ / C# <html> &amp;",
    "\u2028 ls \u2029 ps", "\u1680o\u3000i\u2003e\u202fn\u205fm", "\u180e mvs", "\u001cfs\u001d x",
    "\ufffd", "\ue000", "\U0010ffff", "\u0378", "İ ı ß ẞ", "“q” ‘s’ «g»", "a\u0338=", "a\u200db",
    "\u0301lead", " \u0301 x", "\u0600123", "#\ufe0f\u20e3 1\ufe0f\u20e3", "mixed 中英 mixed文字",
    "tab\t\ttwo", "x\n\n\ny", "a .b , c ! d ? n't 's ' x '", "He said n't 'm 've 're .", "end.",
    "soft\u00ad", "Ω Å", "ﷺ", "日本\u0301語",
]

RULES = {  # a small character map: what to replace (code points), by what
    "a0": "20", "9": "20", "a": "20", "d": "20", "3000": "20", "2003": "20", "200b": "20",
    "1": "", "2": "", "7f": "", "ad": "", "fb01": "66 69", "fb02": "66 6c", "bd": "31 2f 32",
    "65 301": "e9", "6e 303": "f1", "61 300": "e0", "212b": "c5", "2126": "3a9", "ff01": "21",
    "304b 3099": "304c", "b2": "32", "d a": "20", "feff": "", "2160": "49",
}
RULES.update({f"{0xFF21 + i:x}": f"{0x41 + i:x}" for i in range(26)})
RULES.update({f"{0xFF10 + i:x}": f"{0x30 + i:x}" for i in range(10)})


def train_spm(path, kind, vocab, **ids):
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", delete=False) as f:
        f.write("".join(f"{a}\t{b}\n" for a, b in RULES.items()))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, model_type=kind, vocab_size=vocab,
        normalization_rule_tsv=f.name, character_coverage=1.0, minloglevel=2, num_threads=1, **ids)
    os.unlink(f.name)
    with open(path, "wb") as out:
        out.write(model.getvalue())


def start(name, config):
    path = os.path.join(HERE, name)
    os.makedirs(path)
    with open(os.path.join(path, "tokenizer_config.json"), "w") as f:
        json.dump(config, f, indent=1)
    return path


def train_bpe(path, vocab, special):
    t = ByteLevelBPETokenizer()
    t.train_from_iterator(SENTENCES, vocab_size=vocab, min_frequency=2, special_tokens=special,
                          show_progress=False)
    t.save_model(path)


def make_all():
    t5 = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    path = start("t5", {"tokenizer_class": "T5Tokenizer", "extra_ids": 3, "legacy": False})
    train_spm(os.path.join(path, "spiece.model"), "unigram", 300, **t5)
    path = start("t5_bpe", {"tokenizer_class": "T5Tokenizer", "extra_ids": 0,
                            "clean_up_tokenization_spaces": True})
    train_spm(os.path.join(path, "spiece.model"), "bpe", 400, **t5)
    path = start("mbart", {"tokenizer_class": "MBartTokenizer", "src_lang": "en_XX", "tgt_lang": "ro_RO"})
    train_spm(os.path.join(path, "sentencepiece.bpe.model"), "unigram", 290)
    path = start("bart", {"tokenizer_class": "BartTokenizer"})
    train_bpe(path, 500, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    path = start("gpt2_json", {"tokenizer_class": "GPT2Tokenizer", "clean_up_tokenization_spaces": True,
                               "add_prefix_space": True})
    train_bpe(path, 400, ["<|endoftext|>"])
    fast = AutoTokenizer.from_pretrained(path)
    for name in ("vocab.json", "merges.txt"):
        os.unlink(os.path.join(path, name))
    fast.backend_tokenizer.save(os.path.join(path, "tokenizer.json"), pretty=False)
    t5_json = start("t5_json", {"tokenizer_class": "T5Tokenizer", "extra_ids": 3})
    shutil.copy(os.path.join(HERE, "t5", "spiece.model"), t5_json)
    fast = AutoTokenizer.from_pretrained(t5_json)
    os.unlink(os.path.join(t5_json, "spiece.model"))
    fast.backend_tokenizer.save(os.path.join(t5_json, "tokenizer.json"), pretty=False)


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    os.makedirs(HERE)
    texts = AWKWARD + SENTENCES[:26:2]
    make_all()
    with open(os.path.join(HERE, "texts.json"), "w", encoding="utf-8") as f:
        json.dump(texts, f, ensure_ascii=True, indent=0)
    for name in sorted(os.listdir(HERE)):
        path = os.path.join(HERE, name)
        if not os.path.isdir(path):
            continue
        t = AutoTokenizer.from_pretrained(path)
        ids = t(texts)["input_ids"]
        expected = {
            "size": len(t), "eos": t.eos_token_id, "pad": t.pad_token_id, "bos": t.bos_token_id,
            "ids": ids, "decoded": t.batch_decode(ids, skip_special_tokens=True),
            "truncated_7": t(texts[-13:], truncation=True, max_length=7)["input_ids"],
        }
        with open(os.path.join(path, "expected.json"), "w", encoding="utf-8") as f:
            json.dump(expected, f, ensure_ascii=True, separators=(",", ":"))
        print(name, len(t))


if __name__ == "__main__":
    main()
