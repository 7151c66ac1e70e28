# SPDX-License-Identifier: Apache-2.0
# BLEU, chrF and TER of a file of outputs: what is known of them, more references, the same digits and rows on 1, 2 and
# 3 ranks, and, where the package is there, the values of sacrebleu.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/mode/words.sh"

echo "outputs that are the targets"
kd_do 2 --mode eval --predictions data/test.target --metrics rouge,bleu,chrf,ter --corpus $corpus --output_dir same
expect_same same/generations.txt data/test.target

echo "outputs with changes, and a second reference"
awk '{ if (NR % 3 == 0) print $2, $1, $3; else if (NR % 5 == 0) print $1, $2; else print }' data/test.target >changed.txt
awk '{ print $3, $1, "of", $2 ". İt" }' data/test.target >more.txt
options=(--predictions changed.txt --metrics bleu,chrf,ter --references more.txt --chrf_word_order 2 --bleu_tokenize intl
    --bleu_lowercase --bleu_smooth_method floor --bleu_smooth_value 0.25 --ter_normalized --ter_case_sensitive --corpus $corpus)
for np in 1 2 3; do
    kd_do $np --mode eval "${options[@]}" --output_dir changed$np
    expect_same changed1/metrics.json changed$np/metrics.json
    same_rows changed1/examples.h5 changed$np/examples.h5 /id /bleu /chrf /ter
done
kd_do 1 --mode eval "${options[@]}" --n_obs 5 --output_dir few
kd_do 1 --mode eval --predictions changed.txt --metrics chrf --corpus $corpus --bootstrap_resamples 0 --output_dir chrf
python3 - <<'P' || fail "metrics"
import json
same, changed, few, chrf = (json.load(open(d + "/metrics.json")) for d in ("same", "changed1", "few", "chrf"))
for key, value in (("bleu", 0), ("chrf", 100), ("ter", 0), ("rouge1", 100)):
    for k in (key, key + "_low", key + "_high"):
        assert abs(same[k] - value) < 1e-9, (k, same)  # BLEU 0: three words have no 4-gram
assert same["bleu_totals"] == [144, 96, 48, 0] and same["bleu_counts"] == same["bleu_totals"], same
assert "rouge1" not in changed and "bleu" not in chrf, (changed, chrf)
assert changed["bleu_low"] <= changed["bleu"] <= changed["bleu_high"], changed
assert 0 < changed["ter_low"] < changed["ter"] < changed["ter_high"] < 100, changed
assert chrf["chrf_low"] == chrf["chrf"] == chrf["chrf_high"] and chrf["chrf_name"] == "chrF2", chrf
assert changed["chrf_name"] == "chrF2++" and changed["n_obs"] == 48 and few["n_obs"] == 5, changed
start = "nrefs:2|case:lc|eff:no|tok:intl|smooth:floor[0.25]|version:"
assert changed["bleu_signature"].startswith(start), changed
try:
    import sacrebleu
except ImportError:
    raise SystemExit(print("no sacrebleu here: its values were not compared"))
outputs, *refs = ([line.rstrip("\n") for line in open(f, encoding="utf-8")] for f in ("changed.txt", "data/test.target", "more.txt"))
for key, metric in (("bleu", sacrebleu.BLEU(tokenize="intl", lowercase=True, smooth_method="floor", smooth_value=0.25)),
                    ("chrf", sacrebleu.CHRF(word_order=2)), ("ter", sacrebleu.TER(normalized=True, case_sensitive=True))):
    want = metric.corpus_score(outputs, refs)
    assert abs(changed[key] - want.score) < 1e-9, (key, changed[key], want.score)
    assert changed[key + "_signature"].split("|version")[0] == str(metric.get_signature()).split("|version")[0], key
    if key == "bleu":
        for k in ("sys_len", "ref_len", "counts", "totals"):
            assert changed["bleu_" + k] == getattr(want, k), k
P

echo "Romanian: diacritics and quotes do not matter"
mkdir ro
printf '%s\n' 'Guvernul a anunţat „creşteri”, a zis dl. Pop.' 'Da...' >ro/test.target
printf '%s\n' 'The government announced rises.' 'Yes...' >ro/test.source
printf '%s\n' 'Guvernul a anuntat "creșteri", a zis dl. Pop.' 'Da…' >ro.txt
kd_do 1 --mode tokenize --data_dir ro --tokenizer tok --output_dir ro_corpus
plain=(--predictions ro.txt --metrics bleu --corpus ro_corpus/corpus.h5 --bleu_tokenize none --bleu_smooth_method none)
kd_do 1 --mode eval "${plain[@]}" --output_dir ro_plain
kd_do 2 --mode eval "${plain[@]}" --post_process romanian --output_dir ro_post
python3 - <<'P' || fail "Romanian"
import json
plain, post = (json.load(open(d + "/metrics.json")) for d in ("ro_plain", "ro_post"))
assert plain["bleu"] < 50 and "post_process" not in plain, plain
assert abs(post["bleu"] - 100) < 1e-9 and post["post_process"] == "romanian", post
P

echo "refusals"
refuses 2 "MeCab" --mode eval "${options[@]}" --bleu_tokenize ja-mecab --output_dir x
refuses 2 "sacrebleu -tok flores200" --mode eval "${options[@]}" --bleu_tokenize flores200 --output_dir x
refuses 2 "none of 13a" --mode eval "${options[@]}" --bleu_tokenize moses --output_dir x
refuses 2 "none of rouge, bleu" --mode eval "${options[@]}" --metrics rouge,meteor --output_dir x
refuses 2 "replace the model" --mode eval "${options[@]}" --baseline lead --output_dir x
head -n 7 more.txt >short.txt
refuses 3 "short.txt has 7 lines, but the split has 48" --mode eval "${options[@]}" --references short.txt --output_dir x
{ head -n 40 more.txt && printf 'caf\351\n'; } >latin.txt
refuses 3 "latin.txt:41: not valid UTF-8 at byte 4" --mode eval "${options[@]}" --references latin.txt --output_dir x
refuses 3 "nowhere.txt" --mode eval --predictions nowhere.txt --corpus $corpus --output_dir x
