#include "program.hpp"

#include <algorithm>
#include <cstdlib>

#include "generated.hpp"

namespace crowdtrain {
namespace {

constexpr int kMaxImmediates = 64, kMaxBody = 128, kMaxElementary = 32;
constexpr int64_t kMaxExtent = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxFold = int64_t{1} << 26;
constexpr int64_t kMaxValues = 1 << 16;
constexpr int kMaxHeader = 1 << 16, kMaxGroups = 1 << 8, kMaxTensors = 1 << 13;
constexpr int64_t kWideWords = int64_t{1} << 24, kWideFold = 1 << 14;
constexpr int64_t kMaxReach = int64_t{1} << 62;

// Takes big-endian fields and never goes beyond its bytes.
class Reader {
public:
    Reader(Bytes data, std::string where) : data_(data), where_(std::move(where)) {}

    [[noreturn]] void fail(const std::string& why) const { throw ProgramError(where_, why); }
    void require(bool holds, const char* rule) const {
        if (!holds) fail(rule);
    }

    uint32_t u8() { return take(1); }
    uint32_t u16() { return take(2); }
    uint32_t u32() { return take(4); }
    int32_t i32() { return static_cast<int32_t>(take(4)); }
    int count(int most, const char* what) {
        const int value = static_cast<int>(u8());
        if (value > most) fail(std::string(what) + " is " + std::to_string(value) + ", at most " + std::to_string(most));
        return value;
    }
    int value() {
        const uint32_t number = u32();
        require(number < kMaxValues, "a value number is beyond 2^16");
        return static_cast<int>(number);
    }
    void end() const { require(at_ == data_.size(), "bytes are left over"); }

private:
    uint32_t take(size_t bytes) {
        require(bytes <= data_.size() - at_, "the bytes end early");
        uint32_t value = 0;
        for (size_t i = 0; i < bytes; ++i) value = value << 8 | data_[at_++];
        return value;
    }

    Bytes data_;
    size_t at_ = 0;
    std::string where_;
};

int64_t product(const std::vector<int64_t>& extents) {
    int64_t words = 1;
    for (int64_t extent : extents) words *= extent;
    return words;
}

// Extents of at least 1 whose product is at most `most`; so no later product of them overflows.
std::vector<int64_t> read_extents(Reader& in, int rank, int64_t most) {
    std::vector<int64_t> extents;
    int64_t words = 1;
    for (int i = 0; i < rank; ++i) {
        const int64_t extent = in.u32();
        in.require(extent >= 1 && extent <= kMaxExtent, "an extent is not between 1 and 2^31 - 1");
        words *= extent;
        in.require(words <= most, "a shape has too many elements");
        extents.push_back(extent);
    }
    return extents;
}

Axis read_axis(Reader& in, const Nest& nest, int operand_number) {
    Axis axis;
    axis.size = in.u32();
    const uint32_t mode = in.u8();
    in.require(mode <= 3, "an axis has an unknown mode");
    axis.mode = static_cast<Mode>(mode);
    if (axis.mode == Mode::gather) {
        axis.operand = static_cast<int>(in.u8());
        in.require(axis.operand < operand_number, "a gather names an operand that is not before it");
        return axis;
    }
    axis.offset = in.i32();
    if (axis.mode != Mode::affine) {
        axis.divisor = in.u32();
        in.require(axis.divisor >= 2, "a divisor is below 2");
    }
    const int terms = in.count(kMaxLoops, "number of terms");
    int previous = -1;
    int64_t reach = std::abs(axis.offset);
    for (int i = 0; i < terms; ++i) {
        const int loop = static_cast<int>(in.u8());
        const int64_t coefficient = in.i32();
        in.require(loop > previous && loop < nest.loops(), "the loops of an axis are not ascending, or do not exist");
        in.require(coefficient != 0, "a coefficient is 0");
        axis.coefficients[loop] = coefficient;
        const int64_t far = std::abs(coefficient) * (nest.extent(loop) - 1);  // below 2^62
        in.require(far < kMaxReach - reach, "an index reaches beyond 2^62");
        reach += far;
        previous = loop;
    }
    return axis;
}

Operand read_operand(Reader& in, const Nest& nest, int number) {
    Operand operand;
    const uint32_t kind = in.u8();
    in.require(kind <= 1, "an operand is neither a read nor an index");
    if (kind == 1) {
        operand.loop = static_cast<int>(in.u8());
        in.require(operand.loop < nest.loops(), "an index names a loop that does not exist");
        return operand;
    }
    operand.value = in.value();
    const int rank = in.count(kMaxRank, "operand rank");
    operand.fill = in.u32();
    int64_t words = 1;
    for (int d = 0; d < rank; ++d) {
        operand.axes.push_back(read_axis(in, nest, number));
        const int64_t size = operand.axes.back().size;
        in.require(size >= 1 && size <= kMaxExtent, "a size is not between 1 and 2^31 - 1");
        words *= size;
        in.require(words <= kMaxExtent, "a tensor read has too many elements");
    }
    return operand;
}

Instruction read_instruction(Reader& in, int lowest, int defined) {
    Instruction instruction;
    instruction.code = static_cast<uint8_t>(in.u8());
    instruction.arity = opcode_arity(instruction.code);
    in.require(instruction.arity > 0, "an opcode does not exist");
    for (int i = 0; i < 3; ++i) {
        const int ref = static_cast<int>(in.u8());
        if (i < instruction.arity) {
            in.require(ref >= lowest && ref < defined, "an instruction refers to what is not defined there");
        } else {
            in.require(ref == 0, "an unused reference is not 0");
        }
        instruction.refs[i] = ref;
    }
    return instruction;
}

Nest decode_nest(Bytes data, const std::string& where, uint8_t& dtype) {
    Reader in(data, where);
    Nest nest;
    dtype = static_cast<uint8_t>(in.u8());
    in.require(dtype <= 2, "the dtype does not exist");
    const int outer_rank = in.count(kMaxRank, "outer rank"), fold_rank = in.count(kMaxRank, "fold rank");
    nest.outer = read_extents(in, outer_rank, kMaxExtent);
    nest.fold = read_extents(in, fold_rank, kMaxFold);
    in.require(nest.words() <= kWideWords || nest.fold_length() <= kWideFold, "output and fold are both too large");
    nest.init = in.u32();
    in.require(fold_rank > 0 || nest.init == 0, "init is not 0 where there is no fold");
    const int operands = in.count(kMaxOperands, "operand count");
    const int immediates = in.count(kMaxImmediates, "immediate count");
    const int instructions = in.count(kMaxBody, "body length");
    nest.result = static_cast<int>(in.u8());
    for (int i = 0; i < operands; ++i) nest.operands.push_back(read_operand(in, nest, i));
    for (int i = 0; i < immediates; ++i) nest.immediates.push_back(in.u32());
    const int lowest = fold_rank > 0 ? 0 : 1, first = nest.first_instruction();
    int elementary = 0;
    for (int i = 0; i < instructions; ++i) {
        nest.body.push_back(read_instruction(in, lowest, first + i));
        elementary += nest.body.back().code >= kFirstElementary;
    }
    in.require(elementary <= kMaxElementary, "a body has too many elementary functions");
    in.require(nest.result >= lowest && nest.result < first + instructions, "the result is not defined");
    in.end();
    return nest;
}

void add_value(Program& program, const std::vector<int64_t>& shape, uint8_t dtype) {
    program.sizes.push_back(product(shape));
    program.dtypes.push_back(dtype);
}

void read_type(Reader& in, Program& program) {
    const auto dtype = static_cast<uint8_t>(in.u8());
    in.require(dtype <= 2, "a dtype does not exist");
    const int rank = in.count(kMaxRank, "rank");
    add_value(program, read_extents(in, rank, kMaxExtent), dtype);
}

Program decode_header(Bytes data, size_t nests_given) {
    Reader in(data, "header");
    in.require(data.size() <= kMaxHeader, "there are more than 2^16 bytes");
    for (char c : {'C', 'T', 'P', '1'}) in.require(in.u8() == static_cast<uint8_t>(c), "does not begin with CTP1");
    Program program;
    const int groups = static_cast<int>(in.u16());
    program.state_count = static_cast<int>(in.u16());
    program.data_count = static_cast<int>(in.u16());
    const int logs = static_cast<int>(in.u16());
    const int64_t nests = in.u32();
    in.require(nests == static_cast<int64_t>(nests_given), "declares another number of nests than there are");
    in.require(groups >= 1 && nests >= 1, "there must be a group, a state tensor and a nest");
    in.require(groups <= kMaxGroups, "there are more than 2^8 groups");
    in.require(program.first_nest() <= kMaxTensors, "there are more than 2^13 state and data tensors");
    in.require(program.first_nest() + nests <= kMaxValues, "there are more than 2^16 values");
    int in_groups = 0;
    for (int i = 0; i < groups; ++i) {
        const int tensors = static_cast<int>(in.u16());
        in.require(tensors >= 1, "a group is empty");
        in_groups += tensors;
    }
    in.require(in_groups == program.state_count, "the groups do not share out the state tensors");
    for (int i = 0; i < program.state_count; ++i) {
        read_type(in, program);
        program.next.push_back(in.value());
    }
    for (int i = 0; i < program.data_count; ++i) read_type(in, program);
    for (int i = 0; i < logs; ++i) program.logs.push_back(in.value());
    in.end();
    return program;
}

void check_reads(const Program& program, const Nest& nest, const std::string& where) {
    for (const Operand& operand : nest.operands) {
        if (operand.is_index()) continue;
        if (operand.value >= program.value_count()) throw ProgramError(where, "reads a value that is not computed before it");
        if (operand.words() != program.sizes[operand.value]) throw ProgramError(where, "reads a value with other words than it has");
    }
}

}  // namespace

int64_t Operand::words() const {
    int64_t words = 1;
    for (const Axis& axis : axes) words *= axis.size;
    return words;
}

bool Operand::moved_by(int by_loop) const {
    return std::any_of(axes.begin(), axes.end(), [&](const Axis& axis) { return axis.coefficients[by_loop] != 0; });
}

bool Operand::gathers() const {
    return std::any_of(axes.begin(), axes.end(), [](const Axis& axis) { return axis.mode == Mode::gather; });
}

int64_t Nest::words() const { return product(outer); }
int64_t Nest::fold_length() const { return product(fold); }

int64_t Nest::extent(int loop) const {
    const int outer_rank = static_cast<int>(outer.size());
    return loop < outer_rank ? outer[loop] : fold[loop - outer_rank];
}

Program decode_program(Bytes header, const std::vector<Bytes>& nests) {
    Program program = decode_header(header, nests.size());
    for (size_t i = 0; i < nests.size(); ++i) {
        const std::string where = "nest " + std::to_string(i);
        uint8_t dtype = 0;
        Nest nest = decode_nest(nests[i], where, dtype);
        check_reads(program, nest, where);
        add_value(program, nest.outer, dtype);
        program.nests.push_back(std::move(nest));
    }
    for (int i = 0; i < program.state_count; ++i) {
        const int value = program.next[i];
        if (value >= program.value_count() || program.sizes[value] != program.sizes[i] ||
            program.dtypes[value] != program.dtypes[i]) {
            throw ProgramError("header", "state tensor " + std::to_string(i) + " becomes a value of another type");
        }
    }
    for (int value : program.logs) {
        if (value >= program.value_count()) throw ProgramError("header", "a logged value does not exist");
    }
    return program;
}

}  // namespace crowdtrain
