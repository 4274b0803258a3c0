const path = require("path");
const { subtask, task } = require("hardhat/config");
const {
  TASK_COMPILE_SOLIDITY_GET_SOLC_BUILD,
  TASK_COMPILE_SOLIDITY_GET_SOURCE_PATHS,
} = require("hardhat/builtin-tasks/task-names");

const VERSION = require("solc/package.json").version;

// Hardhat downloads its compiler; npm has the same one, already verified by package-lock.json.
subtask(TASK_COMPILE_SOLIDITY_GET_SOLC_BUILD, async ({ solcVersion }) => {
  if (solcVersion !== VERSION) throw new Error(`solc ${solcVersion} was asked for, but npm installed ${VERSION}`);
  return {
    compilerPath: require.resolve("solc/soljson.js"),
    isSolcJs: true,
    version: VERSION,
    longVersion: require("solc").version().replace(".Emscripten.clang", ""),
  };
});

// Forge runs the Solidity tests, with cheat codes that Hardhat does not know.
subtask(TASK_COMPILE_SOLIDITY_GET_SOURCE_PATHS, async (_, { config }, runSuper) => {
  const tests = path.join(config.paths.sources, "test") + path.sep;
  return (await runSuper()).filter((source) => !source.startsWith(tests));
});

task("deploy", "Deploys the contracts and writes <folder>/<chain id>.json", require("./contracts/tools/deploy.js"))
  .addOptionalParam("token", "the ERC-20 of all payments; without it, a token that anybody may mint")
  .addOptionalParam("folder", "where the deployment file goes", "deployments")
  .addOptionalParam("feeRate", "part of every price that is burned, in 1/10,000")
  .addOptionalParam("unbonding", "seconds for which auditors' stake stays locked after leaving")
  .addOptionalParam("epochLength", "seconds of an epoch of rewards")
  .addOptionalParam("firstBudget", "most units of the protocol's token that the first epoch mints")
  .addOptionalParam("cap", "most units of the protocol's token that there can ever be")
  .addOptionalParam("ratio", "most units of the protocol's token for each fee unit, in 1e-18");

module.exports = {
  solidity: { version: VERSION, settings: require("./contracts/tools/settings.json") },
  networks: {
    target: {
      url: process.env.RPC_URL ?? "http://127.0.0.1:8545",
      accounts: process.env.DEPLOYER_KEY ? [process.env.DEPLOYER_KEY] : "remote",
    },
  },
  paths: { sources: "contracts", artifacts: "build/hardhat", cache: "build/hardhat-cache" },
};
