#include "scatter.hpp"

#include <algorithm>

#include "generated.hpp"
#include "operands.hpp"

namespace crowdtrain {
namespace {

constexpr int64_t kMostRest = 1 << 14;  // outputs of one place that a part works on
constexpr int64_t kPlacesAtATime = 256;

bool is(const Instruction& instruction, Opcode code) { return instruction.code == static_cast<uint8_t>(code); }

}  // namespace

// The outputs begin … begin + count - 1 of each place, in fold iteration `f`.
struct Scatter::Part {
    const uint32_t* const* values;
    uint32_t* out;
    int64_t begin, count;
    int64_t f = 0;
    std::vector<uint32_t*> places;  // kPlacesAtATime words of each, or `count` words
    uint32_t *source, *changed;     // `count` words each
    int32_t* offsets;               // of the rest in the output
};

// Finds i == place, or several such joined by `and`.
bool Scatter::add_places(const Nest& nest, int condition, Form& form) {
    const int first = nest.first_instruction(), operands = static_cast<int>(nest.operands.size());
    if (condition < first) return false;
    const Instruction& compare = nest.body[condition - first];
    const auto [a, b, unused] = compare.refs;
    if (is(compare, Opcode::iand)) return add_places(nest, a, form) && add_places(nest, b, form);
    if (!is(compare, Opcode::ieq)) return false;
    for (const auto& [index, place] : {std::pair(a - 1, b - 1), std::pair(b - 1, a - 1)}) {
        if (index < 0 || place < 0 || index >= operands || place >= operands) continue;
        const Operand &i = nest.operands[index], &p = nest.operands[place];
        if (!i.is_index() || i.loop >= static_cast<int>(nest.outer.size()) || p.is_index()) continue;
        form.places.emplace_back(i.loop, place);
        return true;
    }
    return false;
}

std::optional<Scatter::Form> Scatter::recognise(const Nest& nest) {
    const int first = nest.first_instruction(), operands = static_cast<int>(nest.operands.size());
    if (nest.fold.empty() || nest.result < first) return std::nullopt;
    const Instruction& choice = nest.body[nest.result - first];
    const auto [condition, changed, unchanged] = choice.refs;
    Form form{};
    if (!is(choice, Opcode::select) || unchanged != 0 || !add_places(nest, condition, form)) return std::nullopt;
    form.source = changed - 1;
    if (changed >= first) {
        const Instruction& change = nest.body[changed - first];
        const auto [a, b, unused] = change.refs;
        if (!is(change, Opcode::fadd) && !is(change, Opcode::iadd)) return std::nullopt;
        if ((a == 0) == (b == 0)) return std::nullopt;
        form.code = change.code;
        form.source = a + b - 1;
    }
    if (form.source < 0 || form.source >= operands || nest.operands[form.source].is_index()) return std::nullopt;
    std::vector<int> readers{form.source};
    for (const auto& [loop, place] : form.places) readers.push_back(place);
    for (int reader : readers) {
        const Operand& operand = nest.operands[reader];
        const auto named = [&](const auto& place) { return operand.moved_by(place.first); };
        if (operand.gathers() || std::any_of(form.places.begin(), form.places.end(), named)) return std::nullopt;
    }
    std::vector<bool> seen(nest.loops());
    for (const auto& [loop, place] : form.places) {
        if (seen[loop]) return std::nullopt;
        seen[loop] = true;
    }
    return form;
}

std::unique_ptr<Scatter> Scatter::make(const Nest& nest, const Kernels& kernels) {
    std::optional<Form> form = recognise(nest);
    if (!form) return nullptr;
    return std::unique_ptr<Scatter>(new Scatter(nest, kernels, std::move(*form)));
}

Scatter::Scatter(const Nest& nest, const Kernels& kernels, Form form)
    : nest_(nest), kernels_(kernels), form_(std::move(form)), rest_([&] {
          std::vector<int> rest;
          for (int loop = 0; loop < static_cast<int>(nest.outer.size()); ++loop) {
              const auto names = [&](const auto& place) { return place.first == loop; };
              if (std::none_of(form_.places.begin(), form_.places.end(), names)) rest.push_back(loop);
          }
          return rest;
      }()),
      source_(reader(form_.source)) {
    by_rows_ = true;
    for (const auto& [loop, place] : form_.places) {
        places_.push_back(reader(place));
        by_rows_ &= places_.back().steady;
        int64_t stride = 1;
        for (size_t inner = loop + 1; inner < nest.outer.size(); ++inner) stride *= nest.outer[inner];
        extents_.push_back(nest.extent(loop));
        strides_.push_back(stride);
    }
    out_rest_ = Access(nest, output_of(nest)).walk(rest_);
}

Scatter::Reader Scatter::reader(int number) const {
    const Operand& operand = nest_.operands[number];
    std::vector<int> fold;
    for (int loop = static_cast<int>(nest_.outer.size()); loop < nest_.loops(); ++loop) fold.push_back(loop);
    Access access(nest_, operand);
    Walk along = access.walk(fold), across = access.walk(rest_);
    const bool steady = std::none_of(rest_.begin(), rest_.end(), [&](int loop) { return operand.moved_by(loop); });
    return {std::move(access), std::move(along), std::move(across), steady};
}

void Scatter::run(const uint32_t* const* values, uint32_t* out, Workers& workers) const {
    workers.split(nest_.words(), kernels_.lanes, 1, [&](int64_t begin, int64_t end, int) {
        kernels_.fill(out + begin, nest_.init, end - begin);
    });
    workers.split(out_rest_.count, kernels_.lanes, 2 * nest_.fold_length(), [&](int64_t begin, int64_t end, int thread) {
        const int64_t most = std::min(kMostRest, end - begin), row = std::max(most, kPlacesAtATime);
        uint32_t* scratch = workers.scratch[thread].words(static_cast<int64_t>(places_.size()) * row + 3 * most);
        Part part{values, out, begin, most, 0, {}, nullptr, nullptr, nullptr};
        for (size_t i = 0; i < places_.size(); ++i, scratch += row) part.places.push_back(scratch);
        part.source = scratch;
        part.changed = scratch + most;
        part.offsets = reinterpret_cast<int32_t*>(scratch + 2 * most);
        for (; part.begin < end; part.begin += most) {
            part.count = std::min(most, end - part.begin);
            if (!by_rows_) list_offsets(kernels_, out_rest_, part.begin, part.count, part.offsets);
            run_part(part);
        }
    });
}

void Scatter::run_part(Part& part) const {
    const int64_t length = nest_.fold_length();
    for (part.f = 0; part.f < length; ++part.f) {
        if (!by_rows_) {
            change_each(part);
            continue;
        }
        const int64_t at = part.f % kPlacesAtATime;
        for (size_t i = 0; i < places_.size() && at == 0; ++i) {
            const Reader& place = places_[i];
            place.access.load(kernels_, part.places[i], part.values[place.access.value()], place.along,
                              place.access.origin(), part.f, std::min(kPlacesAtATime, length - part.f), nullptr);
        }
        int64_t to = 0;
        bool inside = true;
        for (size_t i = 0; i < places_.size(); ++i) {
            const int64_t place = part.places[i][at];
            inside &= place < extents_[i];
            to += place * strides_[i];
        }
        if (inside) change_rows(part, to);
    }
}

// The words of an operand for the part's outputs in iteration f.
void Scatter::load(const Reader& reader, const Part& part, const Position& at, uint32_t* words) const {
    reader.access.load(kernels_, words, part.values[reader.access.value()], reader.across, at, part.begin, part.count, nullptr);
}

// Changes the outputs of one place: stretches that stand together in memory.
void Scatter::change_rows(Part& part, int64_t to) const {
    Position at = source_.access.origin();
    source_.along.move(at, part.f);
    const uint32_t* source = part.source;
    if (source_.access.contiguous(source_.across)) {
        source = part.values[source_.access.value()] + at[0] + part.begin;
    } else {
        load(source_, part, at, part.source);
    }
    const int64_t step = out_rest_.loops.empty() ? 1 : out_rest_.loops.back().step[0];
    Cursor cursor(out_rest_, Position{}, part.begin);
    for (int64_t i = 0; i < part.count;) {
        const int64_t run = step == 1 ? std::min(part.count - i, cursor.left()) : 1;
        uint32_t* const out = part.out + to + cursor.at()[0];
        if (form_.code) {
            const Source in[] = {{out, run, false}, {source + i, run, false}};
            kernels_.pass[*form_.code](out, in, 1, run);
        } else {
            std::copy_n(source + i, run, out);
        }
        i += run;
        if (i < part.count) cursor.advance(run);
    }
}

// Changes one output of a place of its own for each of the rest; no two are the same.
void Scatter::change_each(Part& part) const {
    for (size_t i = 0; i < places_.size(); ++i) {
        Position at = places_[i].access.origin();
        places_[i].along.move(at, part.f);
        load(places_[i], part, at, part.places[i]);
    }
    Position at = source_.access.origin();
    source_.along.move(at, part.f);
    load(source_, part, at, part.source);
    const auto place_of = [&](int64_t i) {
        int64_t to = part.offsets[i];
        for (size_t p = 0; p < places_.size(); ++p) {
            if (part.places[p][i] >= extents_[p]) return int64_t{-1};
            to += part.places[p][i] * strides_[p];
        }
        return to;
    };
    if (form_.code) {
        for (int64_t i = 0; i < part.count; ++i) {
            const int64_t to = place_of(i);
            part.changed[i] = to < 0 ? 0 : part.out[to];
        }
        const Source in[] = {{part.changed, part.count, false}, {part.source, part.count, false}};
        kernels_.pass[*form_.code](part.source, in, 1, part.count);
    }
    for (int64_t i = 0; i < part.count; ++i) {
        const int64_t to = place_of(i);
        if (to >= 0) part.out[to] = part.source[i];
    }
}

}  // namespace crowdtrain
