#include "body.hpp"

#include <algorithm>

#include "generated.hpp"

namespace crowdtrain {
namespace {

// When an instruction is run: once for all fold iterations, for many at a time, or one after another.
enum Phase { kOnce, kBefore, kFold };

struct Analysis {
    std::vector<bool> live;     // by reference: whether the result depends on it
    std::vector<Phase> phase;   // by reference
    std::vector<int> last_use;  // by reference: the last live instruction that reads it
    std::vector<Phase> needed;  // by reference: the last phase that reads it
};

// By operand: whether no fold loop moves it.
std::vector<bool> steady_operands(const Nest& nest) {
    const int outer = static_cast<int>(nest.outer.size());
    std::vector<bool> steady;
    for (const Operand& operand : nest.operands) {
        bool still = operand.loop < outer;
        for (const Axis& axis : operand.axes) {
            if (axis.mode == Mode::gather) still = still && steady[axis.operand];
            for (int loop = outer; loop < nest.loops(); ++loop) {
                still = still && (axis.coefficients[loop] == 0 || nest.extent(loop) == 1);
            }
        }
        steady.push_back(still);
    }
    return steady;
}

Analysis analyse(const Nest& nest, const std::vector<bool>& steady) {
    const int first = nest.first_instruction(), count = static_cast<int>(nest.body.size());
    Analysis a{std::vector<bool>(first + count), std::vector<Phase>(first + count, kOnce),
               std::vector<int>(first + count, -1), std::vector<Phase>(first + count, kOnce)};
    a.live[nest.result] = true;
    for (int i = count; i-- > 0;) {
        if (!a.live[first + i]) continue;
        for (int r = 0; r < nest.body[i].arity; ++r) {
            const int ref = nest.body[i].refs[r];
            a.live[ref] = true;
            a.last_use[ref] = std::max(a.last_use[ref], i);
        }
    }
    a.phase[0] = kFold;
    for (size_t o = 0; o < steady.size(); ++o) a.phase[1 + o] = steady[o] ? kOnce : kBefore;
    for (int i = 0; i < count; ++i) {
        if (nest.fold.empty()) a.phase[first + i] = kBefore;
        for (int r = 0; r < nest.body[i].arity; ++r) {
            a.phase[first + i] = std::max(a.phase[first + i], a.phase[nest.body[i].refs[r]]);
        }
        if (!a.live[first + i]) continue;
        for (int r = 0; r < nest.body[i].arity; ++r) {
            Phase& needed = a.needed[nest.body[i].refs[r]];
            needed = std::max(needed, a.phase[first + i]);
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
    if ((p == 0) == (q == 0) || a.phase[x] == kFold) return std::nullopt;
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
    const auto free = [&](int ref) { return a.phase[ref] != kFold; };
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

Body::Body(const Nest& nest, const Kernels& kernels) : steady(steady_operands(nest)), needed(nest.operands.size()) {
    const Analysis a = analyse(nest, steady);
    const int first = nest.first_instruction();
    std::vector<int> slot(a.live.size(), -1);
    for (int ref = 1; ref < first; ++ref) slot[ref] = ref - 1;
    slots = first - 1;
    accumulator = slots++;
    slot[0] = accumulator;

    std::vector<BodyPass>* const passes[] = {&once, &before, &fold};
    std::vector<int> unused[3];  // slots to be written again, by the phase that wrote them
    for (int i = 0; i < static_cast<int>(nest.body.size()); ++i) {
        if (!a.live[first + i]) continue;
        const Instruction& instruction = nest.body[i];
        const Phase phase = a.phase[first + i];
        BodyPass pass{kernels.pass[instruction.code], 0, {0, 0, 0}};
        for (int r = 0; r < instruction.arity; ++r) {
            const int ref = instruction.refs[r];
            pass.in[r] = slot[ref];
            // what a later phase reads, it reads again and again, and after all of this phase
            const bool last = a.last_use[ref] == i && a.phase[ref] == phase && a.needed[ref] == phase;
            const bool twice = std::find(&instruction.refs[0], &instruction.refs[r], ref) != &instruction.refs[r];
            if (ref >= first && ref != nest.result && last && !twice) unused[phase].push_back(slot[ref]);
        }
        for (int r = instruction.arity; r < 3; ++r) pass.in[r] = pass.in[0];  // not read
        if (unused[phase].empty()) unused[phase].push_back(slots++);
        pass.out = slot[first + i] = unused[phase].back();
        unused[phase].pop_back();
        passes[phase]->push_back(pass);
    }
    result = slot[nest.result];
    if (!fold.empty()) result = fold.back().out = accumulator;  // the result comes last: all that lives leads to it
    for (int s = 0; s < accumulator; ++s) advancing.push_back(s);
    for (const auto* earlier : {&once, &before}) {
        for (const BodyPass& pass : *earlier) {
            if (std::find(advancing.begin(), advancing.end(), pass.out) == advancing.end()) advancing.push_back(pass.out);
        }
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
