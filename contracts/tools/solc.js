#!/usr/bin/env node
// npm's solc behind the command line that py-solc-x and Forge expect: `--version`, or standard JSON on stdin.
const solc = require("solc");

if (process.argv.includes("--version")) {
  console.log(`solc, the solidity compiler\nVersion: ${solc.version()}`);
} else {
  process.stdout.write(solc.compile(require("fs").readFileSync(0, "utf8")));
}
