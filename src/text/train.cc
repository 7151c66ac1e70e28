/* SPDX-License-Identifier: Apache-2.0 */
/* Training a SentencePiece model and writing it as a T5Tokenizer directory.
 *
 * Lines are handed to the library one by one, checked on the way, so that a bad line is
 * named with its file and number.  The seed and the number of threads are set by the
 * caller and the sums inside depend on nothing else, so the same text gives the same
 * model. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <exception>
#include <string>
#include <unordered_map>

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

extern "C" {
#include "kdhpc/base/json.h"
#include "kdhpc/text/tokenizer.h"
}

namespace
{

/** The lines of several files, for the trainer. */
class Lines : public sentencepiece::SentenceIterator
{
  public:
    explicit Lines(const struct kd_tokenizer_training &training)
        : inputs_(training.inputs), n_inputs_(training.n_inputs)
    {
        Next();
    }
    ~Lines() override
    {
        free(line_);
        if (file_)
            fclose(file_);
    }
    Lines(const Lines &) = delete;
    Lines &operator=(const Lines &) = delete;

    bool done() const override
    {
        return done_ || rc_ != KD_OK;
    }
    const std::string &value() const override
    {
        return value_;
    }
    sentencepiece::util::Status status() const override
    {
        return sentencepiece::util::Status();
    }
    void Next() override
    {
        while (rc_ == KD_OK && !done_ && !ReadLine()) {
        }
    }
    int rc() const
    {
        return rc_;
    } /* KD_OK, or why the lines ended early */

  private:
    /** Take the next line; false if it was none, or empty. */
    bool ReadLine()
    {
        ssize_t n = 0;
        char *text = nullptr;

        if (!file_ && !Open())
            return false;
        n = getline(&line_, &cap_, file_);
        if (n < 0) {
            if (ferror(file_))
                rc_ = KD_FAIL(KD_EINPUT, "%s: cannot be read", inputs_[next_ - 1]);
            fclose(file_);
            file_ = nullptr;
            return false;
        }
        number_++;
        text = line_;
        if (number_ == 1 && n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
            text += 3;
            n -= 3;
        }
        while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
            n--;
        if (kd_utf8_invalid_at(text, n) >= 0) {
            rc_ = KD_FAIL(KD_EINPUT, "%s:%lld: not valid UTF-8", inputs_[next_ - 1],
                          (long long)number_);
            return false;
        }
        value_.assign(text, (size_t)n);
        return n > 0;
    }
    bool Open()
    {
        done_ = next_ == n_inputs_;
        if (done_)
            return false;
        number_ = 0;
        file_ = fopen(inputs_[next_++], "rb");
        if (!file_)
            rc_ = KD_FAIL(KD_EINPUT, "%s: cannot be opened", inputs_[next_ - 1]);
        return file_ != nullptr;
    }

    char *const *inputs_;
    int64_t n_inputs_, next_ = 0, number_ = 0;
    FILE *file_ = nullptr;
    char *line_ = nullptr;
    size_t cap_ = 0;
    bool done_ = false;
    int rc_ = KD_OK;
    std::string value_;
};

int train_model(const struct kd_tokenizer_training &training, std::string *model)
{
    char coverage[32];
    std::unordered_map<std::string, std::string> args = {
        {"model_type", training.bpe ? "bpe" : "unigram"},
        {"vocab_size", std::to_string(training.vocab_size)},
        {"num_threads", std::to_string(training.n_threads)},
        {"max_sentence_length", "1048576"},
        {"pad_id", "0"},
        {"eos_id", "1"},
        {"unk_id", "2"},
        {"bos_id", "-1"},
        {"pad_piece", "<pad>"},
        {"eos_piece", "</s>"},
        {"unk_piece", "<unk>"},
        {"minloglevel", "4"},
    };

    KD_TRY(kd_format(coverage, sizeof coverage, "%.17g", training.character_coverage));
    args["character_coverage"] = coverage;
    if (training.input_sentences > 0) {
        args["input_sentence_size"] = std::to_string(training.input_sentences);
        args["shuffle_input_sentence"] = "true";
    }
    sentencepiece::SetRandomGeneratorSeed((unsigned)training.seed);

    Lines lines(training);
    const auto status = sentencepiece::SentencePieceTrainer::Train(args, &lines, model);

    KD_TRY(lines.rc());
    if (!status.ok())
        return KD_FAIL(KD_EINPUT, "training the tokenizer failed: %s",
                       status.error_message());
    return KD_OK;
}

int write_in(const char *dir, const char *name, const struct kd_json *j,
             const std::string *bytes)
{
    char *path = nullptr;
    int rc = KD_OK;

    KD_TRY(kd_path_join(dir, name, &path));
    rc = j ? kd_json_write_file(j, path)
           : kd_write_file(path, bytes->data(), (int64_t)bytes->size());
    free(path);
    return rc;
}

int write_special(const char *dir, struct kd_json *j)
{
    KD_TRY(kd_json_set_str(j, "eos_token", "</s>"));
    KD_TRY(kd_json_set_str(j, "pad_token", "<pad>"));
    KD_TRY(kd_json_set_str(j, "unk_token", "<unk>"));
    return write_in(dir, "special_tokens_map.json", j, nullptr);
}

int write_config(const char *dir, struct kd_json *j)
{
    KD_TRY(kd_json_set_bool(j, "clean_up_tokenization_spaces", false));
    KD_TRY(kd_json_set_str(j, "eos_token", "</s>"));
    KD_TRY(kd_json_set_int(j, "extra_ids", 0));
    KD_TRY(kd_json_set_bool(j, "legacy", false));
    KD_TRY(kd_json_set_str(j, "pad_token", "<pad>"));
    KD_TRY(kd_json_set_str(j, "tokenizer_class", "T5Tokenizer"));
    KD_TRY(kd_json_set_str(j, "unk_token", "<unk>"));
    return write_in(dir, "tokenizer_config.json", j, nullptr);
}

int write_dir(const char *dir, const std::string &model)
{
    struct kd_json *config = kd_json_object(), *special = kd_json_object();
    int rc = KD_OK;

    if (!config || !special) {
        rc = KD_FAIL(KD_ENOMEM, "no memory for the tokenizer's configuration");
        goto out;
    }
    KD_GO(write_in(dir, "spiece.model", nullptr, &model));
    KD_GO(write_special(dir, special));
    KD_GO(write_config(dir, config));
out:
    kd_json_free(config);
    kd_json_free(special);
    return rc;
}

} // namespace

extern "C" int kd_tokenizer_train(const struct kd_tokenizer_training *training,
                                  const char *dir)
{
    try {
        std::string model;

        KD_TRY(train_model(*training, &model));
        KD_TRY(kd_make_dirs(dir));
        return write_dir(dir, model);
    } catch (const std::exception &e) {
        return KD_FAIL(KD_ENOMEM, "training the tokenizer failed: %s", e.what());
    }
}
