// `hardhat deploy`: deploys the contracts and writes a deployment file for crowdtrain's client.
const fs = require("fs");
const path = require("path");
const { getAddress, getContractAddress } = require("@ethersproject/address");

const NO_RECEIPT = 120; // seconds

/// What is fixed for ever unless options say otherwise; and what each constructor is given, in the order of deployment.
const { parameters, constructors } = require("../../sdk/crowdtrain/contracts.json");

module.exports = async function deploy({ token, folder, ...options }, { run, artifacts, network }) {
  await run("compile", { quiet: true });
  const request = (method, ...params) => network.provider.request({ method, params });
  const [from] = await request("eth_accounts");
  if (!from) throw new Error(`network ${network.name} has no account: set DEPLOYER_KEY to the key that pays`);
  const block = Number(await request("eth_blockNumber"));

  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const numbers = { ...parameters, ...Object.fromEntries(given) };
  const word = (value) => BigInt(value).toString(16).padStart(64, "0");

  // Contracts name each other, so each is told where the others are going to be.
  const names = Object.keys(constructors).filter((name) => !token || name !== "Money");
  const first = Number(await request("eth_getTransactionCount", from, "latest"));
  const at = Object.fromEntries(names.map((name, i) => [name, getContractAddress({ from, nonce: first + i })]));
  if (token) at.Money = getAddress(token);

  for (const name of names) {
    const { bytecode } = await artifacts.readArtifact(name);
    const words = constructors[name].map((what) => word(at[what] ?? numbers[what]));
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
    audit: at.Audit,
    rewards: at.Token,
    emission: at.Emission,
    crowdfund: at.Crowdfund,
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
