// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @notice A tensor that a nest reads.
/// @param value number of the value in the program
/// @param root its tensor root
struct Operand {
    uint32 value;
    bytes32 root;
}

/// @notice One opened page of an operand tensor.
/// @param operand position in the list of operands
/// @param index number of the page
/// @param words 1,024 bytes
/// @param proof siblings up to the tensor's root
struct Page {
    uint32 operand;
    uint32 index;
    bytes words;
    bytes32[] proof;
}

/// @notice What the game must know of a nest.
/// @param words number of output words
/// @param foldLength iterations of the fold; 1 without fold
/// @param init accumulator at the start of the fold
struct NestShape {
    uint32 words;
    uint32 foldLength;
    uint32 init;
}

/// @notice What the game must know of a header.
/// @param groups numbers of tensors in each group
struct HeaderShape {
    uint32 state;
    uint32 data;
    uint32 nests;
    uint32[] groups;
}

/// @title The judge of the last step
/// @notice A pure function of a nest and opened pages, with the meaning of docs/PROTOCOL.md, "Nests".
interface IReferee {
    error InvalidHeader(string why);
    error InvalidNest(string why);
    error MissingPage(uint32 value, uint32 page);
    error BadPage(uint32 value, uint32 page);
    error OutOfRange(uint256 index, uint256 count);

    /// @notice Word of output element `output` after fold iterations `from … to - 1`, starting from `accumulator`.
    /// Reverts with InvalidNest, with MissingPage or BadPage if a word that is read is not opened rightly, or with
    /// OutOfRange if there is no such element or iteration.
    function evaluate(
        bytes calldata nest,
        Operand[] calldata operands,
        Page[] calldata pages,
        uint32 output,
        uint32 from,
        uint32 to,
        uint32 accumulator
    ) external view returns (uint32 word);

    /// @notice Decodes a nest. Reverts with InvalidNest if it breaks a rule that can be checked on it alone.
    function shapeOf(bytes calldata nest) external view returns (NestShape memory);

    /// @notice Decodes a header. Reverts with InvalidHeader if it is malformed.
    function headerOf(bytes calldata header) external view returns (HeaderShape memory);

    /// @notice Number of the value that becomes state tensor `tensor`.
    function nextOf(bytes calldata header, uint32 tensor) external view returns (uint32 value);

    /// @notice Whether nest number `index` breaks a rule of validity given the header: it is malformed, an operand
    /// reads a value that does not come before it, or reads it with a shape that the header (for state and data) or
    /// `producer`, the nest that gives value `read`, contradicts. `producer` is empty unless `read` is a nest's output.
    function isInvalid(bytes calldata header, uint32 index, bytes calldata nest, uint32 read, bytes calldata producer)
        external
        view
        returns (bool);

    /// @notice Whether the header is malformed, or state tensor `tensor` becomes a value that does not exist or is of
    /// another type; `producer` is the nest that gives that value, or empty. If there is no such tensor: whether the
    /// header breaks any rule that can be checked on it alone.
    function isInvalidHeader(bytes calldata header, uint32 tensor, bytes calldata producer) external view returns (bool);
}
