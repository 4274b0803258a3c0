#include "body.hpp"

#include <algorithm>

#include "generated.hpp"

namespace crowdtrain {
namespace {

struct Analysis {
    std::vector<bool> live;       // by reference: whether the result depends on it
    std::vector<bool> recurrent;  // by reference: whether it depends on the accumulator
    std::vector<int> last_use;    // by reference: the last live instruction that reads it
};

Analysis analyse(const Nest& nest) {
    const int first = nest.first_instruction(), count = static_cast<int>(nest.body.size());
    Analysis a{std::vector<bool>(first + count), std::vector<bool>(first + count), std::vector<int>(first + count, -1)};
    a.live[nest.result] = true;
    for (int i = count; i-- > 0;) {
        if (!a.live[first + i]) continue;
        for (int r = 0; r < nest.body[i].arity; ++r) {
            const int ref = nest.body[i].refs[r];
            a.live[ref] = true;
            a.last_use[ref] = std::max(a.last_use[ref], i);
        }
    }
    a.recurrent[0] = !nest.fold.empty();
    for (int i = 0; i < count; ++i) {
        for (int r = 0; r < nest.body[i].arity; ++r) {
            if (a.recurrent[nest.body[i].refs[r]]) a.recurrent[first + i] = true;
        }
    }
    return a;
}

// select(acc < x, x, acc) and its three relatives
std::optional<KnownStep> choice(const Nest& nest, const Analysis& a, const Instruction& last,
                                const std::vector<int>& slot) {
    const int first = nest.first_instruction();
    const int compare = last.refs[0] - first;
    if (compare < 0 || nest.body[compare].code != static_cast<uint8_t>(Opcode::flt)) return std::nullopt;
    const auto [p, q, unused] = nest.body[compare].refs;
    const int x = p == 0 ? q : p;
    if ((p == 0) == (q == 0) || a.recurrent[x]) return std::nullopt;
    const bool accumulator_first = p == 0;
    if (last.refs[1] == x && last.refs[2] == 0) {
        return KnownStep{accumulator_first ? FoldStep::max : FoldStep::min, slot[x], slot[x]};
    }
    if (last.refs[1] == 0 && last.refs[2] == x) {
        return KnownStep{accumulator_first ? FoldStep::min_or_new : FoldStep::max_or_new, slot[x], slot[x]};
    }
    return std::nullopt;
}

// The recurrence as one of the steps that there is a kernel for.
std::optional<KnownStep> recognise(const Nest& nest, const Analysis& a, const std::vector<int>& slot) {
    const int first = nest.first_instruction();
    if (nest.result < first) return std::nullopt;
    const Instruction& last = nest.body[nest.result - first];
    const auto [p, q, r] = last.refs;
    const auto free = [&](int ref) { return !a.recurrent[ref]; };
    switch (static_cast<Opcode>(last.code)) {
        case Opcode::fadd:
            if (p == 0 && free(q)) return KnownStep{FoldStep::sum, slot[q], slot[q]};
            if (q == 0 && free(p)) return KnownStep{FoldStep::sum, slot[p], slot[p]};
            return std::nullopt;
        case Opcode::ffma:
            if (r == 0 && free(p) && free(q)) return KnownStep{FoldStep::multiply_add, slot[p], slot[q]};
            return std::nullopt;
        case Opcode::select: return choice(nest, a, last, slot);
        default: return std::nullopt;
    }
}

}  // namespace

Body::Body(const Nest& nest, const Kernels& kernels) : needed(nest.operands.size()) {
    const Analysis a = analyse(nest);
    const int first = nest.first_instruction();
    std::vector<int> slot(a.live.size(), -1);
    for (int ref = 1; ref < first; ++ref) slot[ref] = ref - 1;
    slots = first - 1;
    accumulator = slots++;
    slot[0] = accumulator;

    // slots to be written again: those of passes before the fold, and those of the fold, are never exchanged
    std::vector<int> unused[2];
    for (int i = 0; i < static_cast<int>(nest.body.size()); ++i) {
        if (!a.live[first + i]) continue;
        const Instruction& instruction = nest.body[i];
        BodyPass pass{kernels.pass[instruction.code], 0, {0, 0, 0}};
        for (int r = 0; r < instruction.arity; ++r) pass.in[r] = slot[instruction.refs[r]];
        const bool recurrent = a.recurrent[first + i];
        for (int r = 0; r < instruction.arity; ++r) {
            const int ref = instruction.refs[r];
            const bool last = a.last_use[ref] == i && a.recurrent[ref] == recurrent;
            const bool once = std::find(instruction.refs.begin(), instruction.refs.begin() + r, ref) ==
                              instruction.refs.begin() + r;
            if (ref >= first && ref != nest.result && last && once) unused[recurrent].push_back(slot[ref]);
        }
        if (unused[recurrent].empty()) unused[recurrent].push_back(slots++);
        pass.out = slot[first + i] = unused[recurrent].back();
        unused[recurrent].pop_back();
        (recurrent ? fold : before).push_back(pass);
    }
    result = slot[nest.result];
    if (!fold.empty()) result = fold.back().out = accumulator;  // the result comes last: all that lives leads to it
    for (int s = 0; s < accumulator; ++s) advancing.push_back(s);
    for (const BodyPass& pass : before) {
        if (std::find(advancing.begin(), advancing.end(), pass.out) == advancing.end()) advancing.push_back(pass.out);
    }
    known = recognise(nest, a, slot);

    for (size_t o = nest.operands.size(); o-- > 0;) {
        if (a.live[1 + o]) needed[o] = true;
        if (!needed[o]) continue;
        for (const Axis& axis : nest.operands[o].axes) {
            if (axis.mode == Mode::gather) needed[axis.operand] = true;
        }
    }
}

}  // namespace crowdtrain
