// Runs a program without Python, so that kernels can be tried where only a cross-compiler and an emulator are:
//
//   run_program PROGRAM WORDS STEPS ISA THREADS
//
// PROGRAM is the file form (docs/PROTOCOL.md, "Programs"); WORDS holds the words of the state and data tensors, one after
// another, little-endian. Prints the instruction set, and then the root of each state tensor after the last step.
#include <bit>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "isa.hpp"
#include "merkle.hpp"
#include "plan.hpp"

using namespace crowdtrain;

namespace {

std::vector<uint8_t> contents(const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(std::string("cannot read ") + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// Leaves after their lengths: header, labels, nests.
std::vector<Bytes> leaves_of(Bytes file) {
    std::vector<Bytes> leaves;
    while (!file.empty()) {
        if (file.size() < 4) throw std::runtime_error("the program ends early");
        const size_t size = size_t{file[0]} << 24 | file[1] << 16 | file[2] << 8 | file[3];
        if (file.size() - 4 < size) throw std::runtime_error("the program ends early");
        leaves.push_back(file.subspan(4, size));
        file = file.subspan(4 + size);
    }
    if (leaves.size() < 2) throw std::runtime_error("the program has no header");
    return leaves;
}

void run(const char* program_path, const char* words_path, int steps, const Kernels& kernels, int threads) {
    static_assert(std::endian::native == std::endian::little);
    const std::vector<uint8_t> file = contents(program_path), raw = contents(words_path);
    std::vector<Bytes> nests = leaves_of(file);
    const Bytes header = nests[0];
    nests.erase(nests.begin(), nests.begin() + 2);
    Plan plan(decode_program(header, nests), kernels, threads);
    const Program& program = plan.program();

    std::vector<std::vector<uint32_t>> tensors;
    size_t at = 0;
    for (int value = 0; value < program.first_nest(); ++value) {
        const size_t size = static_cast<size_t>(program.sizes[value]) * 4;
        if (raw.size() - at < size) throw std::runtime_error("there are too few words");
        std::memcpy(tensors.emplace_back(program.sizes[value]).data(), raw.data() + at, size);
        at += size;
    }
    if (at != raw.size()) throw std::runtime_error("there are too many words");

    std::vector<uint32_t*> state, logs;
    std::vector<const uint32_t*> data;
    std::vector<std::vector<uint32_t>> logged;
    for (int value = 0; value < program.first_nest(); ++value) {
        if (value < program.state_count) {
            state.push_back(tensors[value].data());
        } else {
            data.push_back(tensors[value].data());
        }
    }
    for (int value : program.logs) logged.emplace_back(program.sizes[value]);
    for (std::vector<uint32_t>& row : logged) logs.push_back(row.data());
    for (int step = 0; step < steps; ++step) plan.step(state, data, logs);

    std::printf("%s\n", kernels.name);
    std::vector<std::span<const uint8_t>> words;
    for (int value = 0; value < program.state_count; ++value) {
        words.emplace_back(reinterpret_cast<const uint8_t*>(tensors[value].data()), tensors[value].size() * 4);
    }
    for (const Digest& root : tensor_roots(words, 1)) {
        for (const uint8_t byte : root) std::printf("%02x", byte);
        std::printf("\n");
    }
}

}  // namespace

int main(int count, char** arguments) {
    try {
        if (count != 6) throw std::runtime_error("usage: run_program PROGRAM WORDS STEPS ISA THREADS");
        const Kernels* const kernels = find_kernels(arguments[4]);
        if (!kernels) throw std::runtime_error(std::string("no instruction set here is called ") + arguments[4]);
        run(arguments[1], arguments[2], std::stoi(arguments[3]), *kernels, std::stoi(arguments[5]));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "run_program: %s\n", error.what());
        return 1;
    }
}
