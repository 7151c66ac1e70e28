# SPDX-License-Identifier: Apache-2.0
"""One small tokenizer of each type that the program reads, trained with the reference libraries.

KINDS lists them: each has a name, the sides it encodes, and make(path, sentences, vocab), which writes a directory that
AutoTokenizer loads.  make_tokenizers.py makes fixtures of them, tests/live/tokenizer_types.py compares them on real text.
"""
import io
import json
import os

import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import AddedToken, ByteLevelBPETokenizer, Regex, Tokenizer
from tokenizers import decoders as D
from tokenizers import models as M
from tokenizers import normalizers as N
from tokenizers import pre_tokenizers as P
from tokenizers import processors as O
from tokenizers import trainers as T

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
    "[CLS] a [SEP] b [MASK]", "[UNK] [PAD]x", "x" * 101, "ΑΣ Σ ὈΔΥΣΣΕΎΣ", "I do not know . Do not !",
    "a 'b' c 'd e' `f` ``g'' \"h\" \"i.\" \"j,\"", "(a) ( b ) [c] {d} <e>", "e-mail north-west a--b -c d-",
    "Mr. Smith vs. Dr. No. 5, p. 7, i.e. this, U.S. and so on.", "wait... what.... end..", "..", "....a", "a ..b.. c",
    "1,234.5 5, 6 ,7 a,b ,c,", "10 % of 5 °C at 3:45; no . 7 : x ; y ! z ?", "$5.00 €6 £7 8¥ ¿qué? ¡sí!",
    "l'eau d'or qu'il aujourd'hui O'Neil's 90's 'tis dogs'", "« bonjour » «\u00a0ça\u00a0» „so“ ‚so‘", "12\u00a0345\u00a0678 5\u00a0% nº\u00a05",
    "。　，、”“∶：？《》）！（；１」「０３２５６９７８４．～’…━〈〉【】％", "x。 y． z。。w", "&amp; &lt; &#124; &apos; &quot; &#91; | < > ' \" [ ]",
    ">>fr<< hello", ">>de<<hello >>fr<< x", ">>xx<< y", " >>de<< z", ">> a << b", ">>de", "@-@ x @-@ y a @-@ b", "a.b.c.", "A.",
    "</w> x</w>", "tabs\tand\x0bvt\x0cff\x1ffs", "end.'", "end .' x", "'", "\"", "''", "``", "x ''", "日本語。テスト、です！", "“Hello,” he said.",
]

RULES = {  # a small character map: what to replace (code points), by what
    "a0": "20", "9": "20", "a": "20", "d": "20", "3000": "20", "2003": "20", "200b": "20",
    "1": "", "2": "", "7f": "", "ad": "", "fb01": "66 69", "fb02": "66 6c", "bd": "31 2f 32",
    "65 301": "e9", "6e 303": "f1", "61 300": "e0", "212b": "c5", "2126": "3a9", "ff01": "21",
    "304b 3099": "304c", "b2": "32", "d a": "20", "feff": "", "2160": "49",
}
RULES.update({f"{0xFF21 + i:x}": f"{0x41 + i:x}" for i in range(26)})
RULES.update({f"{0xFF10 + i:x}": f"{0x30 + i:x}" for i in range(10)})


def write_json(path, name, value):
    with open(os.path.join(path, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)


def train_spm(path, sentences, vocab, kind="unigram", small_map=False, **more):
    """A SentencePiece model; SMALL_MAP: with the rules above in place of nmt_nfkc, for small files."""
    model = io.BytesIO()
    if small_map:
        rules = path + ".tsv"
        with open(rules, "w") as f:
            f.write("".join(f"{a}\t{b}\n" for a, b in RULES.items()))
        more.update(normalization_rule_tsv=rules, hard_vocab_limit=kind != "unigram")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, model_type=kind, vocab_size=vocab, character_coverage=0.9995,
        minloglevel=2, num_threads=1, **more)
    if small_map:
        os.unlink(rules)
    proto = ModelProto.FromString(model.getvalue())
    proto.normalizer_spec.normalization_rule_tsv = ""  # where the rules lay
    with open(path, "wb") as out:
        out.write(proto.SerializeToString())


class Kind:
    def __init__(self, name, make, sides=("source",), refuses=None):
        self.name, self.make, self.sides, self.refuses = name, make, sides, refuses

    def accepts(self, text):
        """Whether the reference accepts the text."""
        return not (self.refuses and self.refuses(text))


# ---- tokenizer.json, component by component ----

def save_json(path, tokenizer, **config):
    tokenizer.save(os.path.join(path, "tokenizer.json"), pretty=False)
    write_json(path, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **config})


def train_json(tokenizer, trainer, sentences):
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


def unigram(path, sentences, vocab):
    t = Tokenizer(M.Unigram())
    t.normalizer = N.Sequence([N.Nmt(), N.NFKC(), N.Replace(Regex(" {2,}"), " "), N.Strip()])
    t.pre_tokenizer = P.Metaspace()
    t.decoder = D.Metaspace()
    train_json(t, T.UnigramTrainer(vocab_size=vocab, unk_token="<unk>", special_tokens=["<unk>", "</s>"], show_progress=False), sentences)
    t.post_processor = O.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    save_json(path, t, unk_token="<unk>", eos_token="</s>")


GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def bpe_split(path, sentences, vocab):  # as Qwen 2
    t = Tokenizer(M.BPE())
    t.normalizer = N.NFC()
    t.pre_tokenizer = P.Sequence([P.Split(Regex(GPT4), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = D.ByteLevel()
    train_json(t, T.BpeTrainer(vocab_size=vocab, initial_alphabet=P.ByteLevel.alphabet(), special_tokens=["<|endoftext|>", "<|im_end|>"],
                               show_progress=False), sentences)
    t.post_processor = O.ByteLevel(trim_offsets=False)
    save_json(path, t, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def bpe_whole(path, sentences, vocab):  # as Llama 3
    t = Tokenizer(M.BPE(ignore_merges=True))
    t.pre_tokenizer = P.Sequence([P.Split(Regex(GPT4.replace(r"\p{N}|", r"\p{N}{1,3}|")), "isolated"),
                                  P.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = D.ByteLevel()
    train_json(t, T.BpeTrainer(vocab_size=vocab, initial_alphabet=P.ByteLevel.alphabet(), show_progress=False), sentences)
    j = json.loads(t.to_str())  # drop some merges: the words must still be found whole
    j["model"]["merges"] = [m for i, m in enumerate(j["model"]["merges"]) if i % 7]
    kept = {"".join(m) for m in j["model"]["merges"]}
    t = Tokenizer.from_str(json.dumps(j)) if kept else t
    t.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    t.add_tokens([AddedToken("over there", single_word=True, normalized=True), AddedToken("(c)", lstrip=True, rstrip=True)])
    t.post_processor = O.Sequence([O.ByteLevel(trim_offsets=False), O.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", t.token_to_id("<|begin_of_text|>"))])])
    save_json(path, t, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", clean_up_tokenization_spaces=True)


def bpe_suffix(path, sentences, vocab):  # as the first GPT and CLIP
    t = Tokenizer(M.BPE(unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=True))
    t.normalizer = N.Sequence([N.NFD(), N.Lowercase(), N.StripAccents()])
    t.pre_tokenizer = P.BertPreTokenizer()
    t.decoder = D.BPEDecoder("</w>")
    train_json(t, T.BpeTrainer(vocab_size=vocab, special_tokens=["<unk>"], end_of_word_suffix="</w>", limit_alphabet=80,
                               show_progress=False), sentences)
    save_json(path, t, unk_token="<unk>")


def bpe_prefix(path, sentences, vocab):
    t = Tokenizer(M.BPE(unk_token="<unk>", continuing_subword_prefix="##"))
    t.normalizer = N.NFKD()
    t.pre_tokenizer = P.Whitespace()
    train_json(t, T.BpeTrainer(vocab_size=vocab, special_tokens=["<unk>"], continuing_subword_prefix="##", limit_alphabet=80,
                               show_progress=False), sentences)
    save_json(path, t, unk_token="<unk>")  # no decoder


def bpe_fallback(path, sentences, vocab):  # as Llama 2
    t = Tokenizer(M.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")])
    t.decoder = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])
    spm = [("▁" + s.replace(" ", "▁")) for s in sentences]
    first = Tokenizer(M.BPE(unk_token="<unk>"))
    first.pre_tokenizer = P.Metaspace()
    train_json(first, T.BpeTrainer(vocab_size=vocab, special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)],
                                   limit_alphabet=80, show_progress=False), [s.replace("▁", " ") for s in spm])
    j, k = json.loads(t.to_str()), json.loads(first.to_str())
    j["model"]["vocab"], j["model"]["merges"] = k["model"]["vocab"], k["model"]["merges"]
    t = Tokenizer.from_str(json.dumps(j))
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    t.post_processor = O.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    save_json(path, t, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def word_piece(path, sentences, vocab):  # cased, behind other cutters
    t = Tokenizer(M.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    t.normalizer = N.BertNormalizer(lowercase=False, strip_accents=True)
    t.pre_tokenizer = P.Sequence([P.WhitespaceSplit(), P.Punctuation("isolated"), P.Digits(individual_digits=True)])
    t.decoder = D.WordPiece()
    train_json(t, T.WordPieceTrainer(vocab_size=vocab, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], limit_alphabet=90,
                                     show_progress=False), sentences)
    t.post_processor = O.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    save_json(path, t, unk_token="[UNK]", pad_token="[PAD]")


def word_level(path, sentences, vocab):
    t = Tokenizer(M.WordLevel(unk_token="[UNK]"))
    t.normalizer = N.Sequence([N.NFC(), N.Lowercase(), N.Replace("&", " and "), N.Replace(Regex(r"(\w)\1{2,}"), "*")])
    t.pre_tokenizer = P.Sequence([P.CharDelimiterSplit(" "), P.Digits(), P.Punctuation("contiguous")])
    train_json(t, T.WordLevelTrainer(vocab_size=vocab, special_tokens=["[UNK]"], show_progress=False), sentences)
    save_json(path, t, unk_token="[UNK]")


def splits(behaviour, pattern, invert=False):
    def make(path, sentences, vocab):
        t = Tokenizer(M.WordLevel(unk_token="[UNK]"))
        t.pre_tokenizer = P.Split(Regex(pattern) if pattern != "e" else "e", behaviour, invert)
        t.decoder = D.Fuse()
        train_json(t, T.WordLevelTrainer(vocab_size=vocab, special_tokens=["[UNK]"], show_progress=False), sentences)
        save_json(path, t, unk_token="[UNK]")
    return make


def byte_words(path, sentences, vocab):  # bytes before another model than BPE
    t = Tokenizer(M.WordLevel(unk_token="[UNK]"))
    t.pre_tokenizer = P.ByteLevel(add_prefix_space=True)
    t.decoder = D.ByteLevel()
    train_json(t, T.WordLevelTrainer(vocab_size=vocab, special_tokens=["[UNK]"], show_progress=False), sentences)
    save_json(path, t, unk_token="[UNK]", add_prefix_space=True)


# ---- directories without tokenizer.json ----

def bert(**config):
    def make(path, sentences, vocab):
        lower = config.get("do_lower_case", True)
        t = Tokenizer(M.WordPiece(unk_token="[UNK]"))
        t.normalizer = N.BertNormalizer(lowercase=lower)
        t.pre_tokenizer = P.BertPreTokenizer()
        train_json(t, T.WordPieceTrainer(vocab_size=vocab, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                                         limit_alphabet=200, show_progress=False), sentences)
        t.model.save(path)
        write_json(path, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **config})
    return make


def byte_bpe(name, special, **config):
    def make(path, sentences, vocab):
        t = ByteLevelBPETokenizer()
        t.train_from_iterator(sentences, vocab_size=vocab, min_frequency=2, special_tokens=special, show_progress=False)
        t.save_model(path)
        write_json(path, "tokenizer_config.json", {"tokenizer_class": name, **config})
    return make


BART = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def t5(kind="unigram", **config):
    def make(path, sentences, vocab):
        train_spm(os.path.join(path, "spiece.model"), sentences, vocab, kind, small_map=vocab < 1000, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
        write_json(path, "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "extra_ids": 7, **config})
    return make


def pegasus(**config):
    def make(path, sentences, vocab):
        train_spm(os.path.join(path, "spiece.model"), [s + "<n>" for s in sentences], vocab, small_map=vocab < 1000, pad_id=0, eos_id=1,
                  unk_id=2, bos_id=-1)
        write_json(path, "tokenizer_config.json", {"tokenizer_class": "PegasusTokenizer", **config})
    return make


def mbart(name, **config):
    def make(path, sentences, vocab):
        train_spm(os.path.join(path, "sentencepiece.bpe.model"), sentences, vocab, small_map=vocab < 1000)
        write_json(path, "tokenizer_config.json", {"tokenizer_class": name, **config})
    return make


def pieces_of(path):
    m = sentencepiece.SentencePieceProcessor(model_file=path)
    return [m.id_to_piece(i) for i in range(m.get_piece_size())]


def marian(separate=False, codes=()):
    def make(path, sentences, vocab):
        half = len(sentences) // 2
        for name, part in (("source.spm", sentences[:half + 200]), ("target.spm", sentences[half - 200:])):
            train_spm(os.path.join(path, name), part, vocab, small_map=vocab < 1000)
        source, target = (pieces_of(os.path.join(path, x)) for x in ("source.spm", "target.spm"))
        def number(pieces):
            names = ["</s>", "<unk>"] + [p for p in dict.fromkeys(pieces) if p not in ("</s>", "<unk>", "<s>")][7:] + list(codes) + ["<pad>"]
            return {p: i for i, p in enumerate(names)}
        config = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de"}
        if separate:
            write_json(path, "vocab.json", number(source))
            write_json(path, "target_vocab.json", number(target))
            config["separate_vocabs"] = True
        else:
            write_json(path, "vocab.json", number([p for pair in zip(source, target) for p in pair]))
        write_json(path, "tokenizer_config.json", config)
    return make


def fsmt(source, target, lower=False):
    def make(path, sentences, vocab):
        t = Tokenizer(M.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
        t.pre_tokenizer = P.BertPreTokenizer()
        extra = ["&apos;s &amp; &quot; x @-@ y &apos; &#91; z &#93; &lt; &gt; &#124;"] * 20
        train_json(t, T.BpeTrainer(vocab_size=vocab, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], end_of_word_suffix="</w>",
                                   limit_alphabet=200, show_progress=False), [s.lower() if lower else s for s in sentences + extra])
        j = json.loads(t.to_str())["model"]
        words = sorted(j["vocab"], key=j["vocab"].get)
        write_json(path, "vocab-src.json", {w: i for i, w in enumerate(words)})
        write_json(path, "vocab-tgt.json", {w: i for i, w in enumerate(words[:4] + words[4:][::-1])})
        with open(os.path.join(path, "merges.txt"), "w", encoding="utf-8") as f:
            f.write("".join(" ".join(m if isinstance(m, list) else m.split(" ")) + " %d\n" % (9999 - i) for i, m in enumerate(j["merges"])))
        write_json(path, "tokenizer_config.json", {"tokenizer_class": "FSMTTokenizer", "langs": [source, target], "do_lower_case": lower})
    return make


KINDS = [
    Kind("unigram_json", unigram),
    Kind("bpe_split_json", bpe_split),
    Kind("bpe_whole_json", bpe_whole),
    Kind("bpe_suffix_json", bpe_suffix, refuses=lambda s: not s.strip()),
    Kind("bpe_prefix_json", bpe_prefix),
    Kind("bpe_fallback_json", bpe_fallback),
    Kind("word_piece_json", word_piece),
    Kind("word_level_json", word_level),
    Kind("split_removed_json", splits("removed", r"\W+")),
    Kind("split_isolated_json", splits("isolated", r"[aeiou]{2}|\d+|\s")),
    Kind("split_previous_json", splits("merged_with_previous", r"\s|[,.]")),
    Kind("split_next_json", splits("merged_with_next", "e")),
    Kind("split_contiguous_json", splits("contiguous", r"\p{P}|\h")),
    Kind("split_invert_json", splits("removed", r"\w+|[^\w\s]+", True)),
    Kind("split_empty_json", splits("isolated", r"(?=[A-Z])|\b")),
    Kind("byte_words_json", byte_words),
    Kind("bert", bert()),
    Kind("bert_cased", bert(do_lower_case=False, tokenize_chinese_chars=False)),
    Kind("bert_accents", bert(strip_accents=False, clean_up_tokenization_spaces=True)),
    Kind("bart", byte_bpe("BartTokenizer", BART)),
    Kind("roberta", byte_bpe("RobertaTokenizer", BART, add_prefix_space=True)),
    Kind("gpt2", byte_bpe("GPT2Tokenizer", ["<|endoftext|>"], add_bos_token=True)),
    Kind("t5", t5(legacy=False)),
    Kind("t5_legacy", t5(legacy=True)),
    Kind("t5_bpe", t5("bpe", clean_up_tokenization_spaces=True)),
    Kind("pegasus", pegasus()),
    Kind("pegasus_offset", pegasus(offset=0, mask_token_sent=None, mask_token=None)),
    Kind("mbart", mbart("MBartTokenizer", src_lang="en_XX", tgt_lang="ro_RO"), ("source", "target")),
    Kind("mbart50", mbart("MBart50Tokenizer", src_lang="de_DE", tgt_lang="fr_XX"), ("source", "target")),
    Kind("marian", marian(), ("source", "target")),
    Kind("marian_codes", marian(codes=(">>de<<", ">>fr<<")), ("source", "target")),
    Kind("marian_two", marian(separate=True), ("source", "target")),
    Kind("fsmt_en_de", fsmt("en", "de")),
    Kind("fsmt_de_en", fsmt("de", "en")),
    Kind("fsmt_ru_en_lower", fsmt("ru", "en", True)),
    Kind("fsmt_fr_fr", fsmt("fr", "fr")),
]
