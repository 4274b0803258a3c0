#include "storage.hpp"

#include <algorithm>
#include <optional>

#include "access.hpp"

namespace crowdtrain {
namespace {

constexpr int64_t kUnit = 16;  // words: a cache line

// Gives out parts of an arena that grows as needed.
class Arena {
public:
    int64_t take(int64_t words) {
        words = units(words);
        auto best = free_.end();
        for (auto part = free_.begin(); part != free_.end(); ++part) {
            if (part->words >= words && (best == free_.end() || part->words < best->words)) best = part;
        }
        if (best == free_.end()) {
            if (free_.empty() || free_.back().at + free_.back().words != size_) free_.push_back({size_, 0});
            best = free_.end() - 1;
            size_ = best->at + words;
            best->words = words;
        }
        const int64_t at = best->at;
        best->at += words;
        best->words -= words;
        if (best->words == 0) free_.erase(best);
        return at;
    }

    void give_back(int64_t at, int64_t words) {
        words = units(words);
        auto after = std::find_if(free_.begin(), free_.end(), [&](const Part& part) { return part.at > at; });
        after = free_.insert(after, {at, words});
        if (after + 1 != free_.end() && at + words == (after + 1)->at) {
            after->words += (after + 1)->words;
            free_.erase(after + 1);
        }
        if (after != free_.begin() && (after - 1)->at + (after - 1)->words == at) {
            (after - 1)->words += after->words;
            free_.erase(after);
        }
    }

    int64_t size() const { return size_; }

private:
    struct Part {
        int64_t at, words;
    };
    static int64_t units(int64_t words) { return (words + kUnit - 1) / kUnit * kUnit; }

    std::vector<Part> free_;  // by place, never adjacent
    int64_t size_ = 0;
};

class Planner {
public:
    Planner(const Program& program, const std::vector<Group>& groups,
            const std::function<bool(int, int)>& word_by_word)
        : program_(program), groups_(groups), word_by_word_(word_by_word), readers_(program.value_count()),
          kept_(program.value_count()), group_of_(program.nests.size(), -1) {
        for (size_t g = 0; g < groups.size(); ++g) {
            for (int nest : groups[g].nests) group_of_[nest] = static_cast<int>(g);
        }
        for (size_t nest = 0; nest < program.nests.size(); ++nest) {
            if (group_of_[nest] < 0) continue;
            for (const Operand& operand : program.nests[nest].operands) {
                if (!operand.is_index()) readers_[operand.value].push_back(static_cast<int>(nest));
            }
        }
        for (int value : program.logs) kept_[value] = true;
        for (int value : program.next) kept_[value] = true;
        for (int value = 0; value < program.value_count(); ++value) {
            last_group_.push_back(kept_[value] ? static_cast<int>(groups.size()) : -1);
            for (int nest : readers_[value]) last_group_[value] = std::max(last_group_[value], group_of_[nest]);
        }
        ending_.resize(groups.size() + 1);
    }

    Storage run() {
        storage_.values.resize(program_.value_count());
        for (int i = 0; i < program_.state_count; ++i) storage_.values[i] = {Storage::Place::state, i};
        for (int i = 0; i < program_.data_count; ++i) {
            storage_.values[program_.state_count + i] = {Storage::Place::data, i};
        }
        for (int state = 0; state < program_.state_count; ++state) {
            const int value = program_.next[state];
            if (may_replace(state, value)) storage_.values[value] = {Storage::Place::state, state};
        }
        for (int g = 0; g < static_cast<int>(groups_.size()); ++g) place_outputs(g);
        storage_.arena_words = arena_.size();
        return storage_;
    }

private:
    // Whether `value` may be written where the state tensor stands: nothing needs that any more, or only word by word.
    bool may_replace(int state, int value) const {
        if (value < program_.first_nest() || storage_.values[value].place == Storage::Place::state) return false;
        if (kept_[state]) return false;
        return is_free(state, value - program_.first_nest());
    }

    // Whether nest `writer` may write its output where `value` stands, which nothing needs after its group.
    bool is_free(int value, int writer) const {
        return std::all_of(readers_[value].begin(), readers_[value].end(), [&](int nest) {
            if (nest > writer) return false;
            if (group_of_[nest] != group_of_[writer]) return true;
            if (nest == writer) return word_by_word_(nest, value);
            // the group writes some rows before it reads others
            const std::vector<Operand>& operands = program_.nests[nest].operands;
            return std::all_of(operands.begin(), operands.end(), [&](const Operand& operand) {
                return operand.is_index() || operand.value != value ||
                       reads_by_rows(program_.nests[nest], operand, groups_[group_of_[nest]].rows);
            });
        });
    }

    // The place in the arena of a value that ends with group g, if nest `writer` may write there.
    std::optional<int64_t> inherit(int g, int writer) {
        const int64_t words = program_.sizes[program_.first_nest() + writer];
        std::vector<int>& ending = ending_[g];
        const auto found = std::find_if(ending.begin(), ending.end(), [&](int value) {
            return program_.sizes[value] == words && group_of_[value - program_.first_nest()] != g && is_free(value, writer);
        });
        if (found == ending.end()) return std::nullopt;
        const int64_t at = storage_.values[*found].at;
        ending.erase(found);
        return at;
    }

    void place_outputs(int g) {
        for (int nest : groups_[g].nests) {
            const int value = program_.first_nest() + nest;
            if (storage_.values[value].place == Storage::Place::state) continue;
            if (last_group_[value] == g) {
                storage_.values[value].place = Storage::Place::tile;
            } else {
                const std::optional<int64_t> old = inherit(g, nest);
                storage_.values[value] = {Storage::Place::arena, old ? *old : arena_.take(program_.sizes[value])};
                ending_[last_group_[value]].push_back(value);
            }
        }
        for (int value : ending_[g]) arena_.give_back(storage_.values[value].at, program_.sizes[value]);
    }

    const Program& program_;
    const std::vector<Group>& groups_;
    const std::function<bool(int, int)>& word_by_word_;
    std::vector<std::vector<int>> readers_;  // by value: nests that run and read it
    std::vector<bool> kept_;                 // by value: needed at the end of the step
    std::vector<int> group_of_;              // by nest; -1 where it does not run
    std::vector<int> last_group_;            // by value: the last that needs it; the end of the step counts as one more
    std::vector<std::vector<int>> ending_;   // by group: values in the arena that nothing needs after it
    Storage storage_;
    Arena arena_;
};

}  // namespace

std::vector<bool> live_nests(const Program& program) {
    std::vector<bool> live(program.value_count());
    for (int value : program.logs) live[value] = true;
    for (int value : program.next) live[value] = true;
    for (int value = program.value_count(); value-- > program.first_nest();) {
        if (!live[value]) continue;
        for (const Operand& operand : program.nests[value - program.first_nest()].operands) {
            if (!operand.is_index()) live[operand.value] = true;
        }
    }
    return {live.begin() + program.first_nest(), live.end()};
}

Storage plan_storage(const Program& program, const std::vector<Group>& groups,
                     const std::function<bool(int, int)>& word_by_word) {
    return Planner(program, groups, word_by_word).run();
}

}  // namespace crowdtrain
