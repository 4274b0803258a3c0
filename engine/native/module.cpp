// The extension module crowdtrain_engine._native (its types: _native.pyi).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "float_mode.hpp"
#include "isa.hpp"
#include "merkle.hpp"
#include "plan.hpp"

namespace py = pybind11;
using crowdtrain::Bytes;
using crowdtrain::Plan;
using crowdtrain::Program;

namespace {

using Arrays = std::vector<py::array>;
using WordArray = py::array_t<uint32_t>;

Bytes view(const py::bytes& data) {
    char* start = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(data.ptr(), &start, &size) != 0) throw py::error_already_set();
    return {reinterpret_cast<const uint8_t*>(start), static_cast<size_t>(size)};
}

std::unique_ptr<Plan> make_plan(const py::bytes& header, const std::vector<py::bytes>& nests, const std::string& isa,
                                int threads) {
    const crowdtrain::Kernels* kernels = crowdtrain::find_kernels(isa);
    if (!kernels) throw py::value_error("instruction set '" + isa + "' does not run here");
    if (threads < 1 || threads > 1024) throw py::value_error("threads must be between 1 and 1024");
    std::vector<Bytes> views;
    for (const py::bytes& nest : nests) views.push_back(view(nest));
    return std::make_unique<Plan>(crowdtrain::decode_program(view(header), views), *kernels, threads);
}

const uint32_t* words_of(const py::array& array, int64_t size, int number) {
    if (array.itemsize() != 4 || !(array.flags() & py::array::c_style) || array.size() != size) {
        throw py::value_error("value " + std::to_string(number) + " must be a C-contiguous array of " +
                              std::to_string(size) + " 4-byte words");
    }
    return static_cast<const uint32_t*>(array.data());
}

// The words of `arrays`, which must be the values `first`, `first` + 1 … of the program.
std::vector<const uint32_t*> words_of(const Program& program, const Arrays& arrays, int first, int count) {
    if (static_cast<int>(arrays.size()) != count) {
        throw py::value_error(std::to_string(count) + " arrays are needed, " + std::to_string(arrays.size()) + " were given");
    }
    std::vector<const uint32_t*> words;
    for (int i = 0; i < count; ++i) words.push_back(words_of(arrays[i], program.sizes[first + i], first + i));
    return words;
}

// A step writes to `state` while it reads the rest; data may overlap one another.
void check_apart(const Arrays& state, const Arrays& data) {
    struct Span {
        const char* start;
        const char* end;
        bool written;
    };
    std::vector<Span> spans;
    for (const Arrays* arrays : {&state, &data}) {
        for (const py::array& array : *arrays) {
            const char* const start = static_cast<const char*>(array.data());
            spans.push_back({start, start + array.nbytes(), arrays == &state});
        }
    }
    std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.start < b.start; });
    const char* end_of_any = nullptr;
    const char* end_of_written = nullptr;
    for (const Span& span : spans) {
        if (span.start < (span.written ? end_of_any : end_of_written)) {
            throw py::value_error("two of the arrays overlap in memory");
        }
        end_of_any = std::max(end_of_any, span.end);
        if (span.written) end_of_written = std::max(end_of_written, span.end);
    }
}

std::vector<WordArray> run_steps(Plan& plan, Arrays state, const Arrays& data, int64_t steps, std::vector<int64_t>* spent) {
    const Program& program = plan.program();
    if (steps < 0) throw py::value_error("steps must not be negative");
    words_of(program, state, 0, program.state_count);
    std::vector<uint32_t*> state_words;
    for (py::array& array : state) state_words.push_back(static_cast<uint32_t*>(array.mutable_data()));
    const auto data_words = words_of(program, data, program.state_count, program.data_count);
    check_apart(state, data);
    std::vector<WordArray> rows;
    std::vector<uint32_t*> row;
    for (int value : program.logs) {
        rows.emplace_back(std::vector<py::ssize_t>{steps, program.sizes[value]});
        row.push_back(rows.back().mutable_data());
    }
    const py::gil_scoped_release release;
    for (int64_t step = 0; step < steps; ++step) {
        plan.step(state_words, data_words, row, spent);
        for (size_t i = 0; i < row.size(); ++i) row[i] += program.sizes[program.logs[i]];
    }
    return rows;
}

std::vector<WordArray> run(Plan& plan, const Arrays& state, const Arrays& data, int64_t steps) {
    return run_steps(plan, state, data, steps, nullptr);
}

// The nests that run together, and the nanoseconds that they took, group after group.
std::vector<std::pair<std::vector<int>, int64_t>> profile(Plan& plan, const Arrays& state, const Arrays& data, int64_t steps) {
    std::vector<int64_t> spent(plan.groups().size());
    run_steps(plan, state, data, steps, &spent);
    std::vector<std::pair<std::vector<int>, int64_t>> groups;
    for (size_t g = 0; g < spent.size(); ++g) groups.emplace_back(plan.groups()[g].nests, spent[g]);
    return groups;
}

std::vector<WordArray> values(Plan& plan, const Arrays& state, const Arrays& data) {
    const Program& program = plan.program();
    auto words = words_of(program, state, 0, program.state_count);
    const auto data_words = words_of(program, data, program.state_count, program.data_count);
    words.insert(words.end(), data_words.begin(), data_words.end());
    std::vector<WordArray> arrays;
    for (int value = 0; value < program.value_count(); ++value) arrays.emplace_back(program.sizes[value]);
    std::vector<uint32_t*> outputs;
    for (WordArray& array : arrays) outputs.push_back(array.mutable_data());
    const py::gil_scoped_release release;
    for (int value = 0; value < program.first_nest(); ++value) {
        std::copy_n(words[value], program.sizes[value], outputs[value]);
    }
    for (int value = program.first_nest(); value < program.value_count(); ++value) {
        plan.nest(value - program.first_nest(), words, outputs[value]);
        words.push_back(outputs[value]);
    }
    return arrays;
}

WordArray nest(Plan& plan, int number, const Arrays& before) {
    const Program& program = plan.program();
    if (number < 0 || number >= static_cast<int>(program.nests.size())) throw py::index_error("nest does not exist");
    const int value = program.first_nest() + number;
    const auto words = words_of(program, before, 0, value);
    WordArray out(program.sizes[value]);
    uint32_t* const target = out.mutable_data();
    const py::gil_scoped_release release;
    plan.nest(number, words, target);
    return out;
}

std::vector<std::string> kinds(const Plan& plan) {
    const std::vector<const char*> kinds = plan.kinds();
    return {kinds.begin(), kinds.end()};
}

Bytes bytes_of(const py::array& array) {
    if (!(array.flags() & py::array::c_style)) throw py::value_error("the array must be C-contiguous");
    return {static_cast<const uint8_t*>(array.data()), static_cast<size_t>(array.nbytes())};
}

py::bytes tensor_leaves(const py::array& array, int threads) {
    const Bytes data = bytes_of(array);
    std::string leaves;
    {
        const py::gil_scoped_release release;
        leaves = crowdtrain::tensor_leaves(data, threads);
    }
    return py::bytes(leaves);
}

std::vector<py::bytes> tensor_roots(const Arrays& arrays, int threads) {
    std::vector<Bytes> tensors;
    for (const py::array& array : arrays) tensors.push_back(bytes_of(array));
    std::vector<crowdtrain::Digest> roots;
    {
        const py::gil_scoped_release release;
        roots = crowdtrain::tensor_roots(tensors, threads);
    }
    std::vector<py::bytes> copies;
    for (const crowdtrain::Digest& root : roots) copies.emplace_back(reinterpret_cast<const char*>(root.data()), root.size());
    return copies;
}

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const crowdtrain::Kernels* kernels : crowdtrain::available_kernels()) names.emplace_back(kernels->name);
    return names;
}

// FloatMode as a context manager.
struct PlainFloats {
    std::optional<crowdtrain::FloatMode> mode;
    void enter() { mode.emplace(); }
    void leave(const py::args&) { mode.reset(); }
};

}  // namespace

PYBIND11_MODULE(_native, module) {
    py::register_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const crowdtrain::ProgramError& e) {
            const py::object type = py::module_::import("crowdtrain_engine._errors").attr("ProgramError");
            py::set_error(type, type(e.where, e.what()));
        }
    });
    module.def("isas", &isas);
    module.def("tensor_leaves", &tensor_leaves, py::arg("array"), py::arg("threads"));
    module.def("tensor_roots", &tensor_roots, py::arg("arrays"), py::arg("threads"));
    py::class_<PlainFloats>(module, "PlainFloats")
        .def(py::init<>())
        .def("__enter__", &PlainFloats::enter)
        .def("__exit__", &PlainFloats::leave);
    py::class_<Plan>(module, "Plan")
        .def(py::init(&make_plan), py::arg("header"), py::arg("nests"), py::arg("isa"), py::arg("threads"))
        .def_property_readonly("isa", [](const Plan& plan) { return std::string(plan.kernels().name); })
        .def("kinds", &kinds)
        .def_property_readonly("memory", &Plan::memory)
        .def("run", &run, py::arg("state"), py::arg("data"), py::arg("steps"))
        .def("profile", &profile, py::arg("state"), py::arg("data"), py::arg("steps"))
        .def("values", &values, py::arg("state"), py::arg("data"))
        .def("nest", &nest, py::arg("number"), py::arg("values"));
}
