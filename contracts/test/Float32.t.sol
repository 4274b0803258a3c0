// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Float32} from "../libraries/Float32.sol";
import {Test} from "./Test.sol";

uint256 constant ZERO = 0;
uint256 constant ONE = 0x3f800000;
uint256 constant TWO = 0x40000000;
uint256 constant TINY = 1; // the least subnormal
uint256 constant LEAST = 0x00800000; // the least normal number
uint256 constant MOST = 0x7f7fffff; // the greatest finite number
uint256 constant INFINITY = 0x7f800000;
uint256 constant NAN = 0x7fc00000;
uint256 constant SIGN = 0x80000000;

contract Float32Test is Test {
    uint256[] private specials = [ZERO, TINY, 0x007fffff, LEAST, ONE, TWO, MOST, INFINITY, NAN, 0x7f800001, 0xffc12345];

    function test_add_of_specials() external pure {
        assertEq(Float32.add(ZERO, SIGN), ZERO, "0 + -0");
        assertEq(Float32.add(SIGN, SIGN), SIGN, "-0 + -0");
        assertEq(Float32.add(ONE, ONE | SIGN), ZERO, "1 + -1");
        assertEq(Float32.add(INFINITY, MOST | SIGN), INFINITY, "inf + -most");
        assertEq(Float32.add(INFINITY, INFINITY | SIGN), NAN, "inf + -inf");
        assertEq(Float32.add(MOST, MOST), INFINITY, "overflow");
        assertEq(Float32.add(MOST, 0x73000000), INFINITY, "half an ulp above the greatest rounds up to even");
        assertEq(Float32.add(MOST, 0x72ffffff), MOST, "less than half does not");
        assertEq(Float32.add(LEAST, TINY | SIGN), 0x007fffff, "normal to subnormal");
        assertEq(Float32.sub(ZERO, ZERO), ZERO, "0 - 0");
        assertEq(Float32.sub(SIGN, ZERO), SIGN, "-0 - 0");
    }

    function test_add_rounds_ties_to_even() external pure {
        assertEq(Float32.add(ONE, 0x33800000), ONE, "1 + half an ulp");
        assertEq(Float32.add(ONE, 0x33800001), 0x3f800001, "1 + a little more");
        assertEq(Float32.add(0x3f800001, 0x33800000), 0x3f800002, "odd + half an ulp");
        assertEq(Float32.sub(ONE, 0x33000000), ONE, "1 - a quarter of an ulp, half of one below");
        assertEq(Float32.sub(ONE, 0x33000001), 0x3f7fffff, "1 - a little more");
    }

    function test_mul_and_div_of_specials() external pure {
        assertEq(Float32.mul(ZERO, INFINITY), NAN, "0 * inf");
        assertEq(Float32.mul(SIGN, ONE), SIGN, "-0 * 1");
        assertEq(Float32.mul(TINY, 0x3f000000), ZERO, "half of the least is a tie, to even");
        assertEq(Float32.mul(3, 0x3f000000), 2, "half of three of the least is a tie, to even");
        assertEq(Float32.mul(TINY | SIGN, TINY), SIGN, "underflow keeps the sign");
        assertEq(Float32.mul(MOST, TWO), INFINITY, "overflow");
        assertEq(Float32.div(ONE, ZERO), INFINITY, "1 / 0");
        assertEq(Float32.div(ONE, SIGN), INFINITY | SIGN, "1 / -0");
        assertEq(Float32.div(ZERO, SIGN), NAN, "0 / -0");
        assertEq(Float32.div(INFINITY, INFINITY), NAN, "inf / inf");
        assertEq(Float32.div(SIGN, INFINITY), SIGN, "-0 / inf");
        assertEq(Float32.div(ONE, 0x40400000), 0x3eaaaaab, "1 / 3");
        assertEq(Float32.div(LEAST, TWO), 0x00400000, "normal to subnormal");
    }

    function test_fma_rounds_once() external pure {
        // (1 + 2^-23)^2 - (1 + 2^-22) is 2^-46 exactly; rounded twice it would be 0.
        assertEq(Float32.fma(0x3f800001, 0x3f800001, 0xbf800002), 0x28800000, "the tail of a square");
        assertEq(Float32.fma(ONE, ONE, ONE | SIGN), ZERO, "1 * 1 - 1");
        assertEq(Float32.fma(SIGN, ONE, SIGN), SIGN, "-0 * 1 - 0");
        assertEq(Float32.fma(SIGN, ONE, ZERO), ZERO, "-0 * 1 + 0");
        assertEq(Float32.fma(ZERO, INFINITY, NAN), NAN, "0 * inf + nan");
        assertEq(Float32.fma(ONE, INFINITY, INFINITY | SIGN), NAN, "inf - inf");
        assertEq(Float32.fma(MOST, MOST, INFINITY | SIGN), INFINITY | SIGN, "finite - inf");
        assertEq(Float32.fma(MOST, TWO, MOST | SIGN), MOST, "the product may exceed the range");
    }

    function test_sqrt() external pure {
        assertEq(Float32.sqrt(SIGN), SIGN, "-0");
        assertEq(Float32.sqrt(ONE | SIGN), NAN, "-1");
        assertEq(Float32.sqrt(INFINITY), INFINITY, "inf");
        assertEq(Float32.sqrt(INFINITY | SIGN), NAN, "-inf");
        assertEq(Float32.sqrt(TWO), 0x3fb504f3, "2");
        assertEq(Float32.sqrt(TINY), 0x1a3504f3, "the least");
        assertEq(Float32.sqrt(MOST), 0x5f7fffff, "the greatest");
    }

    function test_a_nan_makes_nan() external view {
        for (uint256 i = 0; i < specials.length; ++i) {
            uint256 a = specials[i];
            for (uint256 j = 8; j < specials.length; ++j) {
                uint256 nan = specials[j];
                uint256 differences = (Float32.add(a, nan) ^ NAN) | (Float32.sub(nan, a) ^ NAN)
                    | (Float32.mul(nan, a) ^ NAN) | (Float32.div(a, nan) ^ NAN) | (Float32.fma(a, nan, ONE) ^ NAN)
                    | (Float32.fma(ONE, a, nan) ^ NAN) | (Float32.sqrt(nan) ^ NAN) | (Float32.neg(nan) ^ NAN)
                    | (Float32.abs(nan) ^ NAN) | Float32.toInt32(nan) | Float32.toUint32(nan);
                assertEq(differences, 0, "nan");
                assertFalse(Float32.lt(a, nan) || Float32.le(nan, a) || Float32.eq(nan, nan), "unordered");
            }
        }
    }

    function test_conversions() external pure {
        assertEq(Float32.toInt32(0xbfffffff), 0xffffffff, "-1.99 is -1");
        assertEq(Float32.toInt32(0x4f000000), 0x7fffffff, "2^31 saturates");
        assertEq(Float32.toInt32(0xcf000000), 0x80000000, "-2^31 fits");
        assertEq(Float32.toInt32(INFINITY | SIGN), 0x80000000, "-inf");
        assertEq(Float32.toUint32(0xbf800000), 0, "-1 saturates");
        assertEq(Float32.toUint32(0x4f7fffff), 0xffffff00, "below 2^32");
        assertEq(Float32.toUint32(0x4f800000), 0xffffffff, "2^32 saturates");
        assertEq(Float32.fromInt32(0x80000000), 0xcf000000, "-2^31");
        assertEq(Float32.fromInt32(0xffffffff), ONE | SIGN, "-1");
        assertEq(Float32.fromUint32(0xffffffff), 0x4f800000, "2^32 - 1 rounds up");
        assertEq(Float32.fromUint32(0x01000001), 0x4b800000, "2^24 + 1 is a tie, to even");
    }

    function test_addition_commutes_and_subtraction_is_its_inverse(uint32 a, uint32 b) external pure {
        uint256 sum = Float32.add(a, b);
        assertEq(sum, Float32.add(b, a), "commutes");
        assertEq(sum, Float32.sub(a, uint256(b) ^ SIGN), "a - -b");
        assertEq(Float32.neg(sum), _negateSum(a, b), "-a + -b = -(a + b), but for zero");
        assertEq(sum, Float32.fma(a, ONE, b), "a * 1 + b");
    }

    function _negateSum(uint256 a, uint256 b) private pure returns (uint256) {
        uint256 sum = Float32.add(a ^ SIGN, b ^ SIGN);
        bool exactZero = sum & 0x7fffffff == 0 && (a ^ b) & SIGN != 0;
        return exactZero ? sum ^ SIGN : sum;
    }

    function test_multiplication(uint32 a, uint32 b) external pure {
        uint256 product = Float32.mul(a, b);
        assertEq(product, Float32.mul(b, a), "commutes");
        assertEq(product, Float32.fma(a, b, (uint256(a) ^ b) & SIGN), "a * b + 0 of its sign");
        assertEq(Float32.neg(product), Float32.mul(uint256(a) ^ SIGN, b), "-a * b = -(a * b)");
        assertEq(Float32.mul(a, TWO), Float32.add(a, a), "a * 2 = a + a");
    }

    function test_division(uint32 a, uint32 b) external pure {
        assertEq(Float32.div(a, ONE), Float32.mul(a, ONE), "a / 1");
        assertEq(Float32.div(a, 0x3f000000), Float32.mul(a, TWO), "a / half");
        uint256 finite = bound(a, 0x20000000, 0x5effffff);
        assertEq(Float32.div(finite, finite), ONE, "a / a");
        uint256 quotient = Float32.div(a, b);
        assertEq(Float32.neg(quotient), Float32.div(a, uint256(b) ^ SIGN), "a / -b = -(a / b)");
    }

    function test_sqrt_of_a_square(uint32 a) external pure {
        uint256 root = bound(a, 0x20000000, 0x5effffff);
        assertEq(Float32.sqrt(Float32.mul(root, root)), root, "the root of a rounded square is the number");
    }

    function test_order(uint32 a, uint32 b) external pure {
        bool ordered = !Float32.isNaN(a) && !Float32.isNaN(b);
        bool less = Float32.lt(a, b);
        bool more = Float32.lt(b, a);
        bool equal = Float32.eq(a, b);
        assertTrue((less ? 1 : 0) + (more ? 1 : 0) + (equal ? 1 : 0) == (ordered ? 1 : 0), "one of three");
        assertTrue(Float32.le(a, b) == (less || equal), "le");
        if (ordered && Float32.abs(a) != INFINITY) {
            assertTrue(less == (Float32.sub(a, b) > SIGN), "less as the difference is negative");
        }
    }

    function test_integers_return(uint32 a) external pure {
        uint256 low = uint256(a) & 0xffffff;
        assertEq(Float32.toUint32(Float32.fromUint32(low)), low, "24 bits as u32");
        assertEq(Float32.toInt32(Float32.fromInt32(low)), low, "24 bits as i32");
        uint256 negative = (0x100000000 - low) & 0xffffffff;
        assertEq(Float32.toInt32(Float32.fromInt32(negative)), negative, "24 bits, negative");
        assertEq(Float32.neg(Float32.fromInt32(a)), _negateInt(a), "conversion is odd");
    }

    function _negateInt(uint256 i) private pure returns (uint256) {
        if (i == 0) return SIGN;
        if (i == SIGN) return 0x4f000000;
        return Float32.fromInt32(0x100000000 - i);
    }
}

/// Gas of one call from within a contract: the jumps there and back are included, and about 15 for measuring.
contract Float32GasTest is Test {
    Meter private immutable meter = new Meter();

    /// For numbers of ordinary size, none 2^49 times another, whose sums do not lose more than 7 leading bits.
    function test_gas_of_ordinary_operands() external {
        uint256[7] memory numbers =
            [uint256(0x3f9e0419), 0xc048f5c3, 0x3dcccccd, 0xbc99999a, 0x41490fdb, 0x39800001, 0xc6123456];
        uint256[] memory operands = new uint256[](7);
        for (uint256 i = 0; i < 7; ++i) {
            operands[i] = numbers[i];
        }
        _measure("ordinary", operands, 500);
    }

    function test_gas_of_any_operands() external {
        uint256[12] memory numbers =
            [ZERO, TINY, 0x007fffff, LEAST, MOST, INFINITY, NAN, ONE, 0xbf800001, 0x3f800002, 0x00812345, 0x33800000];
        uint256[] memory operands = new uint256[](12);
        for (uint256 i = 0; i < 12; ++i) {
            operands[i] = numbers[i];
        }
        _measure("any", operands, 1100);
    }

    function _measure(string memory kind, uint256[] memory operands, uint256 limit) private {
        uint256[5] memory most;
        uint256 n = operands.length;
        for (uint256 i = 0; i < n * n * n; ++i) {
            uint256[5] memory gas = meter.measure(operands[i % n], operands[i / n % n], operands[i / n / n]);
            for (uint256 j = 0; j < 5; ++j) {
                if (gas[j] > most[j]) most[j] = gas[j];
            }
        }
        string[5] memory names = ["add", "mul", "div", "sqrt", "fma"];
        for (uint256 j = 0; j < 5; ++j) {
            log(names[j], most[j]);
            vm.snapshotValue("Float32", string.concat(names[j], ", ", kind, " operands"), most[j]);
            assertLe(most[j], limit, names[j]);
        }
    }
}

contract Meter {
    function measure(uint256 a, uint256 b, uint256 c) external view returns (uint256[5] memory gas) {
        uint256 sink;
        uint256 left = gasleft();
        sink = Float32.add(a, b);
        gas[0] = left - gasleft();
        left = gasleft();
        sink ^= Float32.mul(a, b);
        gas[1] = left - gasleft();
        left = gasleft();
        sink ^= Float32.div(a, b);
        gas[2] = left - gasleft();
        left = gasleft();
        sink ^= Float32.sqrt(a & 0x7fffffff);
        gas[3] = left - gasleft();
        left = gasleft();
        sink ^= Float32.fma(a, b, c);
        gas[4] = left - gasleft();
        if (sink == 1) gas[0] += 1; // keeps the results in use
    }
}
