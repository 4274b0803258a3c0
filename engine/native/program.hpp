// A program as the engine holds it, decoded from its canonical bytes (docs/PROTOCOL.md, "Nests" and "Programs").
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace crowdtrain {

constexpr int kMaxOperands = 16;  // of a nest
constexpr int kMaxRank = 8;
constexpr int kMaxLoops = 2 * kMaxRank;

// A program, header or nest that breaks a rule; `where` names the part, what() says which rule.
struct ProgramError : std::runtime_error {
    ProgramError(std::string place, const std::string& why) : std::runtime_error(why), where(std::move(place)) {}
    std::string where;
};

enum class Mode : uint8_t { affine, exact, floor, gather };

// The position along one dimension: offset + sum of coefficient * index, over `divisor`, or the word of an operand.
struct Axis {
    int64_t size = 0;
    Mode mode = Mode::affine;
    int64_t offset = 0;
    int64_t divisor = 1;
    int operand = 0;
    std::array<int64_t, kMaxLoops> coefficients{};
};

struct Operand {
    int loop = -1;  // the loop whose index it is, or -1: a read
    int value = 0;
    uint32_t fill = 0;
    std::vector<Axis> axes;

    bool is_index() const { return loop >= 0; }
    int64_t words() const;             // of the tensor read
    bool moved_by(int by_loop) const;  // whether a position follows the loop directly, not through a gather
    bool gathers() const;              // whether another operand gives a position
};

struct Instruction {
    uint8_t code = 0;
    int arity = 0;
    std::array<int, 3> refs{};
};

struct Nest {
    std::vector<int64_t> outer;
    std::vector<int64_t> fold;
    uint32_t init = 0;
    std::vector<Operand> operands;
    std::vector<uint32_t> immediates;
    std::vector<Instruction> body;
    int result = 0;

    int64_t words() const;        // of the output
    int64_t fold_length() const;  // 1 where there is no fold
    int loops() const { return static_cast<int>(outer.size() + fold.size()); }
    int64_t extent(int loop) const;
    int first_immediate() const { return 1 + static_cast<int>(operands.size()); }
    int first_instruction() const { return first_immediate() + static_cast<int>(immediates.size()); }
};

struct Program {
    int state_count = 0;
    int data_count = 0;
    std::vector<int> next;  // the value that becomes each state tensor
    std::vector<int> logs;
    std::vector<Nest> nests;
    std::vector<uint8_t> dtypes;               // of every value
    std::vector<int64_t> sizes;                // words of every value

    int first_nest() const { return state_count + data_count; }
    int value_count() const { return static_cast<int>(sizes.size()); }
};

using Bytes = std::span<const uint8_t>;

// Throws ProgramError for anything but the canonical bytes of a valid program. Allocates no more than the bytes ask for.
Program decode_program(Bytes header, const std::vector<Bytes>& nests);

}  // namespace crowdtrain
