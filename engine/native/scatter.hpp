// Folds that change few of their outputs in each iteration: acc <- select(i == place, acc + x, acc), where i is an outer
// loop's index. Gradients of embeddings, scatters, sums over the edges of graphs.
//
// An accumulator that is not selected stays as it is, so only those that the places name are touched, in the fold's order.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "access.hpp"
#include "nest_plan.hpp"

namespace crowdtrain {

class Scatter final : public NestPlan {
public:
    // Null where the nest is none.
    static std::unique_ptr<Scatter> make(const Nest& nest, const Kernels& kernels);

    const char* kind() const override { return "scatter"; }
    void run(const uint32_t* const* values, uint32_t* out, Workers& workers) const override;

private:
    // How the body names the outputs that it changes, and what becomes of them.
    struct Form {
        std::vector<std::pair<int, int>> places;  // an outer loop, and the operand that its index must equal
        int source;                               // operand
        std::optional<uint8_t> code;              // of the operation on accumulator and source; none: the source itself
    };
    // One operand that says where, or what.
    struct Reader {
        Access access;
        Walk along, across;  // over the fold; over the outer loops that are not named
        bool steady;         // the same for all of those loops
    };
    struct Part;

    static std::optional<Form> recognise(const Nest& nest);
    static bool add_places(const Nest& nest, int condition, Form& form);

    Scatter(const Nest& nest, const Kernels& kernels, Form form);

    Reader reader(int operand) const;
    void run_part(Part& part) const;
    void change_rows(Part& part, int64_t to) const;
    void change_each(Part& part) const;
    void load(const Reader& reader, const Part& part, const Position& at, uint32_t* words) const;

    const Nest& nest_;
    const Kernels& kernels_;
    const Form form_;
    std::vector<int> rest_;  // outer loops that are not named
    std::vector<Reader> places_;
    std::vector<int64_t> extents_, strides_;  // of the named loops; in the output
    Reader source_;
    Walk out_rest_;
    bool by_rows_;  // the places do not depend on the rest
};

}  // namespace crowdtrain
