// `hardhat deploy`: deploys the contracts and writes a deployment file for crowdtrain's client.
const fs = require("fs");
const path = require("path");
const { getAddress, getContractAddress } = require("@ethersproject/address");

const NO_RECEIPT = 120; // seconds

/// Each contract with its constructor's arguments, in the order of deployment.
const CONSTRUCTORS = {
  Referee: [],
  Stake: ["Money", "Market", "Dispute"],
  Market: ["Money", "Stake", "Dispute"],
  Dispute: ["Market", "Stake", "Referee"],
};

module.exports = async function deploy({ token, folder }, { run, artifacts, network }) {
  await run("compile", { quiet: true });
  const request = (method, ...params) => network.provider.request({ method, params });
  const [from] = await request("eth_accounts");
  if (!from) throw new Error(`network ${network.name} has no account: set DEPLOYER_KEY to the key that pays`);
  const block = Number(await request("eth_blockNumber"));

  // Stake, Market and Dispute name each other, so each is told where the others are going to be.
  const names = [...Object.keys(CONSTRUCTORS), ...(token ? [] : ["Money"])];
  const first = Number(await request("eth_getTransactionCount", from, "latest"));
  const at = Object.fromEntries(names.map((name, i) => [name, getContractAddress({ from, nonce: first + i })]));
  if (token) at.Money = getAddress(token);

  for (const name of names) {
    const { bytecode } = await artifacts.readArtifact(name);
    const words = (CONSTRUCTORS[name] ?? []).map((other) => at[other].slice(2).toLowerCase().padStart(64, "0"));
    const transaction = { from, data: bytecode + words.join("") };
    const gas = await request("eth_estimateGas", transaction);
    const receipt = await mined(request, await request("eth_sendTransaction", { ...transaction, gas }));
    if (getAddress(receipt.contractAddress) !== at[name] || Number(receipt.status) !== 1) {
      throw new Error(`${name} is at ${receipt.contractAddress}, not at ${at[name]}: another transaction came between`);
    }
    console.log(`${name} ${at[name]}`);
  }

  const chain = Number(await request("eth_chainId"));
  const file = path.join(folder, `${chain}.json`);
  const deployment = {
    chain_id: chain,
    block,
    token: at.Money,
    stake: at.Stake,
    market: at.Market,
    dispute: at.Dispute,
    referee: at.Referee,
  };
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(file, JSON.stringify(deployment, null, 2) + "\n");
  console.log(file);
};

async function mined(request, hash) {
  for (let second = 0; second < NO_RECEIPT; second++) {
    const receipt = await request("eth_getTransactionReceipt", hash);
    if (receipt) return receipt;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  throw new Error(`transaction ${hash} is in no block after ${NO_RECEIPT} s`);
}
