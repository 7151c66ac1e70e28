# SPDX-License-Identifier: Apache-2.0
"""Every family on real text, from a Hugging Face directory to a Hugging Face directory, beside transformers:

    real_text.py KDHPC DATA WORK [--families a,b] [--sources 1000] [--steps 600] [--keep]

DATA has {train,val,test}.{source,target}.  For each family the script trains a tokenizer of the family's own type on DATA,
makes a small model with the switches and the generation settings of a published checkpoint (lengths fitted to the data), and
takes both through the modes as a user would.  Then the program and transformers' generate (float32, each with its own
tokenizer, from the same lines) must give the same ids and lines: greedy, with the model's own settings, and with four beams.

Where ids differ, both outputs are scored in double precision with the same processors.  A near tie: the scores (of sums of
log-probabilities, after length penalty) are within 1e-5 of each other relative to the larger one, or transformers gives
our output when it has the source alone, without padding, in double precision.  All else counts as other, and fails.

Known bugs of transformers 4.57 are gone around, all of FSMT: its generate hands the model one id a step, so that positions
are wrong, and has no causal mask at all without a cache; nor is there such a mask in double precision.
"""
import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.path[:0] = [os.path.join(HERE, "..", x) for x in ("golden", "mode")]
try:
    import h5py
    import torch
    import transformers as hf
    import tokenizer_kinds as kinds
    from family_readback import check, rows
    from make_models import whole_prefix
    from safetensors.torch import load_file
    from transformers.models.fsmt import modeling_fsmt as fsmt_module
except ImportError as e:
    print("skipped: %s (KDHPC_TEST_PYTHON names another interpreter)" % e)
    sys.exit(77)

TIE = 1e-5
SOURCE, TARGET = 128, 32  # ids at most
SMALL = dict(d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
             encoder_ffn_dim=256, decoder_ffn_dim=256, max_position_embeddings=SOURCE, attention_dropout=0.0,
             activation_dropout=0.0, dropout=0.1, init_std=0.08)
SMALL_T5 = dict(d_model=64, d_kv=16, num_heads=4, d_ff=256, num_layers=2, num_decoder_layers=2)


def code(t, name):
    return t.convert_tokens_to_ids(name)


def bart(t):  # facebook/bart-large-xsum, with the first token of bart-large-cnn
    return (hf.BartConfig(vocab_size=len(t), activation_function="gelu", **SMALL),
            dict(num_beams=6, max_length=40, min_length=6, no_repeat_ngram_size=3, early_stopping=True,
                 forced_bos_token_id=0, forced_eos_token_id=2))


def pegasus(t):  # google/pegasus-xsum
    return (hf.PegasusConfig(vocab_size=len(t), activation_function="relu", scale_embedding=True, **SMALL),
            dict(num_beams=8, max_length=32, length_penalty=0.6, forced_eos_token_id=1))


def mbart(t):  # facebook/mbart-large-en-ro
    return (hf.MBartConfig(vocab_size=len(t), activation_function="gelu", scale_embedding=True,
                           decoder_start_token_id=code(t, "ro_RO"), **SMALL),
            dict(num_beams=5, max_length=40, early_stopping=True, forced_eos_token_id=2))


def mbart50(t):  # facebook/mbart-large-50-many-to-one-mmt, to another language
    return (hf.MBartConfig(vocab_size=len(t), activation_function="relu", scale_embedding=True, decoder_start_token_id=2,
                           **SMALL),
            dict(num_beams=5, max_length=40, early_stopping=True, forced_bos_token_id=code(t, "fr_XX"),
                 forced_eos_token_id=2))


def marian(t):  # Helsinki-NLP/opus-mt-en-ro
    pad = t.pad_token_id
    return (hf.MarianConfig(vocab_size=len(t), activation_function="swish", scale_embedding=True, pad_token_id=pad,
                            decoder_start_token_id=pad, bos_token_id=0, eos_token_id=0, **SMALL),
            dict(num_beams=4, max_length=40, bad_words_ids=[[pad]], forced_eos_token_id=0, renormalize_logits=True))


def fsmt(t):  # facebook/wmt19-en-de
    return (hf.FSMTConfig(langs=["en", "de"], src_vocab_size=t.src_vocab_size, tgt_vocab_size=t.tgt_vocab_size,
                          activation_function="relu", scale_embedding=True, tie_word_embeddings=False, **SMALL),
            dict(num_beams=5, max_length=40, length_penalty=1.15, early_stopping=False, forced_eos_token_id=2))


SUMMARIES = dict(num_beams=4, max_length=40, min_length=8, length_penalty=2.0, early_stopping=True, no_repeat_ngram_size=3)


def t5(t):  # t5-small, rows beyond the tokenizer's included
    return (hf.T5Config(vocab_size=len(t) + 28, decoder_start_token_id=0, feed_forward_proj="relu", **SMALL_T5,
                        task_specific_params={"summarization": {"prefix": "summarize: ", **SUMMARIES},
                                              "translation_en_to_de": dict(early_stopping=True, max_length=300, num_beams=4,
                                                                           prefix="translate English to German: ")}), {})


def t5_gated(t):  # google/t5-v1_1-small
    return (hf.T5Config(vocab_size=len(t) + 28, decoder_start_token_id=0, feed_forward_proj="gated-gelu",
                        tie_word_embeddings=False, **SMALL_T5), dict(max_length=32))


def mt5(t):  # google/mt5-small
    return (hf.MT5Config(vocab_size=len(t) + 12, decoder_start_token_id=0, feed_forward_proj="gated-gelu",
                         tie_word_embeddings=False, **SMALL_T5), dict(max_length=32))


class Family:
    """A tokenizer type, a model, what the command line has beyond the common options, a recipe of inputs/, and whether the
    directory is one of 2020."""

    def __init__(self, name, tokenizer, model, tokenize=(), task=None, deck=None, vocab=2000, old=False):
        self.name, self.tokenizer, self.model, self.vocab = name, tokenizer, model, vocab
        self.tokenize, self.task, self.deck, self.old = tuple(tokenize), task, deck, old


FAMILIES = [
    Family("BART", kinds.byte_bpe("BartTokenizer", kinds.BART), bart, deck="train_distilbart_xsum"),
    Family("Pegasus", kinds.pegasus(), pegasus, deck="finetune_pegasus_xsum", old=True),
    Family("mBART", kinds.mbart("MBartTokenizer", src_lang="en_XX", tgt_lang="ro_RO"), mbart,
           ("--src_lang", "en_XX", "--tgt_lang", "ro_RO"), deck="train_mbart_cc25_enro"),
    Family("mBART-50", kinds.mbart("MBart50Tokenizer", src_lang="en_XX", tgt_lang="fr_XX"), mbart50,
           ("--src_lang", "en_XX", "--tgt_lang", "fr_XX")),
    Family("Marian", kinds.marian(), marian, deck="distil_marian_enro_teacher"),
    Family("FSMT", kinds.fsmt("en", "de"), fsmt, old=True),
    Family("T5", kinds.t5(extra_ids=100, legacy=True), t5, ("--task", "summarization"), task="summarization", deck="finetune_t5"),
    Family("T5 v1.1", kinds.t5(extra_ids=100), t5_gated),
    Family("mT5", kinds.t5(extra_ids=0), mt5, vocab=3000),
]


class Run:
    """The program in one family's folder; a run that fails shows its words."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1")

    def __call__(self, mode, *args, **options):
        words = [str(a) for a in args] + [str(x) for k, v in options.items() for x in ("--" + k, v)]
        done = subprocess.run(["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "2", self.program, "--mode", mode,
                               "--threads", "1", *words], cwd=self.folder, env=self.env, capture_output=True, text=True)
        if done.returncode:
            sys.exit("%s: --mode %s %s: exit %d\n%s" % (self.folder, mode, " ".join(words), done.returncode, done.stderr[-3000:]))
        return done.stdout


def lines(path, n=-1):
    with open(path, encoding="utf-8") as f:
        return [x.rstrip("\n") for x in f][: n if n >= 0 else None]


def directory(family, data, path):
    """What a user downloads."""
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    sample = [x for side in ("source", "target") for x in lines("%s/train.%s" % (data, side), 12000)]
    family.tokenizer(path, sample, family.vocab)
    t = hf.AutoTokenizer.from_pretrained(path)
    t.save_pretrained(path)
    config, generation = family.model(t)
    torch.manual_seed(1)
    model = hf.AutoModelForSeq2SeqLM.from_config(config)
    ids = {k: getattr(config, k) for k in ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id")}
    model.generation_config = hf.GenerationConfig(**ids, **generation)
    model.save_pretrained(path)
    if family.old:
        of_2020(path, generation)


def of_2020(path, generation):
    """Generation settings in config.json, weights in pytorch_model.bin."""
    os.unlink(path + "/generation_config.json")
    with open(path + "/config.json") as f:
        config = {**json.load(f), **generation}
    with open(path + "/config.json", "w") as f:
        json.dump(config, f)
    torch.save(load_file(path + "/model.safetensors"), path + "/pytorch_model.bin")
    os.unlink(path + "/model.safetensors")


def through_the_modes(family, run, data, steps):
    """tokenize, sft, make-student, kd, pseudo-label, sft on labels, convert, inspect."""
    task = ("--task", family.task) if family.task else ()
    train = dict(corpus="corpus/corpus.h5", train_batch_size=32, learning_rate=3e-3, warmup_steps=min(100, steps), n_val=64,
                 val_check_interval=1.0, dropout=0, val_metric="loss", save_steps=-1)
    run("tokenize", *family.tokenize, data_dir=data, tokenizer="download", max_source_length=SOURCE, max_target_length=TARGET,
        output_dir="corpus")
    run("sft", "--sortish_sampler", model="download", max_steps=steps, output_dir="sft", **train)
    run("make-student", teacher="sft/model", decoder_layers=1, output_dir="student")
    run("kd", teacher="sft/model", model="student", max_steps=steps // 10, output_dir="kd", **train)
    run("pseudo-label", *task, "--write_text", teacher="sft/model", corpus="corpus/corpus.h5", n_obs=64, output_dir="labels")
    run("sft", model="student", max_steps=2, output_dir="on_labels", **{**train, "corpus": "labels/labels.h5", "n_val": 0})
    run("convert", model="kd/model", save_dtype="bfloat16", output_dir="half")
    for path in ("sft/model", "kd/model", "half"):
        assert json.loads(run("inspect", "--json", path=path))["usable"], path
    if family.deck:
        deck(family, run, data)


def deck(family, run, data):
    """The recipe of inputs/ with this directory, cut short."""
    config = "%s/inputs/%s.yaml" % (os.path.abspath(ROOT), family.deck)
    with open(config) as f:
        kd = "\nteacher:" in f.read()
    run("tokenize", config=config, data_dir="few", tokenizer="download", max_source_length=SOURCE, max_target_length=TARGET,
        output_dir="deck_corpus")
    models = dict(teacher="sft/model", student_encoder_layers=2, student_decoder_layers=1) if kd else dict(model="sft/model")
    run("kd" if kd else "sft", config=config, tokenizer="download", corpus="deck_corpus/corpus.h5", train_batch_size=16,
        max_steps=4, n_val=8, n_test=8, output_dir="deck", **models)


def few(data, path):
    os.makedirs(path, exist_ok=True)
    for split in ("train", "val", "test"):
        for side in ("source", "target"):
            with open("%s/%s.%s" % (path, split, side), "w", encoding="utf-8") as f:
                f.write("".join(x + "\n" for x in lines("%s/%s.%s" % (data, split, side), 64)))


RECORDS = []


class Keep(logging.Handler):
    def emit(self, record):
        RECORDS.append(record.getMessage())


def load(path):
    """Model and tokenizer, without a word about weights."""
    RECORDS.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model, info = hf.AutoModelForSeq2SeqLM.from_pretrained(path, output_loading_info=True)
    caught = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert not any(info.values()) and not RECORDS and not caught, (path, info, RECORDS, caught)
    return model.eval(), hf.AutoTokenizer.from_pretrained(path)


def pad_rows(r, fill):
    width = max(map(len, r))
    return torch.tensor([x + [fill] * (width - len(x)) for x in r])


class Reference:
    """transformers with options over the model's settings."""

    def __init__(self, model, options):
        self.model, self.options = model, options
        if model.config.model_type == "fsmt":
            whole_prefix(model)
        self.config = hf.GenerationConfig(**{**model.generation_config.to_diff_dict(), **options})
        model._prepare_special_tokens(self.config)
        self.eos, self.pad = model.config.eos_token_id, model.config.pad_token_id

    def generate(self, sources):
        out = self.model.generate(input_ids=pad_rows(sources, self.pad), **self.options,
                                  attention_mask=pad_rows([[1] * len(s) for s in sources], 0)).tolist()
        return [r[1: r.index(self.eos, 1) + 1] if self.eos in r[1:] else r[1:] for r in out]

    def in_batches(self, sources, size=50):
        order, out = sorted(range(len(sources)), key=lambda i: len(sources[i])), [None] * len(sources)
        for at in range(0, len(order), size):
            batch = order[at: at + size]
            for i, ids in zip(batch, self.generate([sources[i] for i in batch])):
                out[i] = ids
        return out

    def score(self, source, ids):
        """What the search compares: a sum of log-probabilities over length to the penalty."""
        prefix = torch.tensor([[self.config.decoder_start_token_id] + ids])
        chain = self.model._get_logits_processor(self.config, input_ids_seq_length=1, encoder_input_ids=torch.tensor([source]))
        with torch.no_grad():
            z = self.model(input_ids=torch.tensor([source]), decoder_input_ids=prefix[:, :-1], use_cache=False).logits[0]
        total = 0.0
        for k, token in enumerate(ids):
            total += chain(prefix[:, : k + 1], z[k: k + 1].log_softmax(-1))[0, token].item()
        return total / (len(ids) ** self.config.length_penalty if self.config.num_beams > 1 else 1)


def near_tie(double, source, ours, theirs):
    a, b = double.score(source, ours), double.score(source, theirs)
    if abs(a - b) <= TIE * max(abs(a), abs(b)):
        return True, (a, b)
    return double.generate([source])[0] == ours, (a, b)


def compare(path, model, sources, ours, options):
    """Counts of identical outputs, near ties and others."""
    theirs = Reference(model, options).in_batches(sources)
    different = [i for i in range(len(sources)) if ours[i] != theirs[i]]
    ties = 0
    if different:
        double = Reference(hf.AutoModelForSeq2SeqLM.from_pretrained(path).eval().double(), options)
    for i in different:
        tie, scores = near_tie(double, sources[i], ours[i], theirs[i])
        ties += tie
        print("   %s: source %d: ours %s (%.9g), theirs %s (%.9g)" % ("near tie" if tie else "OTHER", i, ours[i], scores[0],
                                                                     theirs[i], scores[1]), flush=True)
    return len(sources) - len(different), ties, len(different) - ties


def outputs(family, run, folder, data, n):
    """Of the program and of transformers, from the same lines: (identical, near ties, others) by setting."""
    path = os.path.join(folder, "sft/model")
    model, t = load(path)
    params = dict((model.config.task_specific_params or {}).get(family.task, {}))
    prefix = params.pop("prefix", "")
    text = lines(data + "/test.source", n)
    sources = t([prefix + x for x in text], truncation=True, max_length=SOURCE, verbose=False)["input_ids"]
    task = ("--task", family.task) if family.task else ()
    found = {}
    for name, options in (("greedy", dict(num_beams=1)), ("own", {}), ("beam 4", dict(num_beams=4))):
        out = "eval_" + name.replace(" ", "_")
        run("eval", *task, model="sft/model", corpus="corpus/corpus.h5", n_obs=n, output_dir=out, bootstrap_resamples=0,
            **options)
        with h5py.File("%s/%s/examples.h5" % (folder, out)) as f, h5py.File(folder + "/corpus/corpus.h5") as corpus:
            assert rows(corpus["test/source"])[:n] == sources, "sources differ"
            ours = rows(f["output"])
        found[name] = compare(path, model, sources, ours, {**params, **options})
        decoded = [" ".join(x.split("\n")) for x in t.batch_decode(ours, skip_special_tokens=True)]
        assert lines("%s/%s/generations.txt" % (folder, out)) == decoded, (name, "lines differ")
    with open(folder + "/input.txt", "w", encoding="utf-8") as f:
        f.write("".join(x + "\n" for x in text))
    run("generate", *task, model="sft/model", input="input.txt", max_source_length=SOURCE, output_dir="generate")
    assert lines(folder + "/generate/generations.txt") == lines(folder + "/eval_own/generations.txt"), "generate and eval differ"
    return found


def settings(path):
    """What generate would go by."""
    model = hf.AutoModelForSeq2SeqLM.from_pretrained(path)
    given = model.generation_config.to_diff_dict()
    return {k: v for k, v in given.items() if k not in ("transformers_version", "_from_model_config")}


def losses(run, folder):
    """Directories load with the settings of the first one, and transformers gives 50 examples the same losses."""
    load(os.path.join(folder, "half"))
    want = settings(folder + "/download")
    for path in ("sft/model", "kd/model", "half"):
        assert settings(os.path.join(folder, path)) == want, (path, settings(os.path.join(folder, path)), want)
    for model in ("sft/model", "kd/model"):
        run("score", model=model, corpus="corpus/corpus.h5", n_obs=50, output_dir=model + ".score")
        check(folder + "/corpus/corpus.h5", os.path.join(folder, model))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("program")
    p.add_argument("data")
    p.add_argument("work")
    p.add_argument("--families", default="")
    p.add_argument("--sources", type=int, default=1000)
    p.add_argument("--steps", type=int, default=600)
    p.add_argument("--keep", action="store_true", help="compare with the models that are there")
    a = p.parse_args()
    torch.set_num_threads(1)
    fsmt_module.fill_with_neg_inf = lambda t: torch.full_like(t, torch.finfo(torch.float32).min)
    hf.logging.set_verbosity_warning()
    logging.getLogger("transformers").addHandler(Keep(level=logging.WARNING))
    data, table, others = os.path.abspath(a.data), [], 0
    for family in FAMILIES:
        if a.families and family.name not in a.families.split(","):
            continue
        folder = os.path.join(os.path.abspath(a.work), family.name.replace(" ", "_"))
        run = Run(os.path.abspath(a.program), folder)
        if not a.keep:
            shutil.rmtree(folder, ignore_errors=True)
            directory(family, data, folder + "/download")
            few(data, folder + "/few")
            through_the_modes(family, run, data, a.steps)
            losses(run, folder)
        for name in os.listdir(folder):
            if name.startswith(("eval_", "generate")):
                shutil.rmtree(os.path.join(folder, name))
        found = outputs(family, run, folder, data, a.sources)
        others += sum(x[2] for x in found.values())
        table.append("| %s | %s |" % (family.name, " | ".join("%d + %d" % x[:2] if not x[2] else "%d + %d, %d differ" % x
                                                              for x in found.values())))
        print(table[-1], flush=True)
    print("\n".join(["", "| family | greedy | own settings | 4 beams |", "|---|---|---|---|"] + table))
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
