// A CSMS by another hand: ocpp-rpc (npm) in strict mode. It answers every request well and says on stdout what came:
// {"port"}, {"client"}, {"method", "params"}, {"bad": text}. Lines on stdin, {"method", "params"}, go to the station.
const path = process.argv[2];
const { RPCServer, createValidator } = require(path);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");

// Its 2.1 schemas are named by class and not by message, so it would find none of them.
const schemas = require(path + "/lib/schemas/ocpp2_1.json").map((schema) => ({
  ...schema,
  $id: schema.$id.replace(/Request$/, ".req").replace(/Response$/, ".conf"),
}));
const server = new RPCServer({
  protocols: ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"],
  strictMode: true,
  strictModeValidators: [createValidator("ocpp2.1", schemas)],
});

const now = () => new Date().toISOString();
let numbers = 0;
const answers = {
  BootNotification: () => ({ status: "Accepted", currentTime: now(), interval: 300 }),
  Heartbeat: () => ({ currentTime: now() }),
  Authorize: (old) => (old ? { idTagInfo: { status: "Accepted" } } : { idTokenInfo: { status: "Accepted" } }),
  StartTransaction: () => ({ transactionId: ++numbers, idTagInfo: { status: "Accepted" } }),
  DataTransfer: () => ({ status: "Accepted" }),
  SignCertificate: () => ({ status: "Accepted" }),
  NotifyEVChargingNeeds: () => ({ status: "Accepted" }),
};

server.auth((accept) => accept());
server.on("client", (client) => {
  say({ client: client.identity, protocol: client.protocol });
  client.handle(({ method, params }) => {
    say({ method, params });
    return (answers[method] || (() => ({})))(client.protocol === "ocpp1.6");
  });
  client.on("strictValidationFailure", (event) => say({ bad: `${event.method || ""} ${event.error && event.error.message}` }));
  client.on("badMessage", (event) => say({ bad: `message: ${event.error && event.error.message}` }));
  require("readline").createInterface({ input: process.stdin }).on("line", async (line) => {
    const { method, params } = JSON.parse(line);
    try {
      say({ answer: await client.call(method, params), to: method });
    } catch (error) {
      say({ bad: `${method}: ${error.message}` });
    }
  });
});
server.listen(0, "127.0.0.1").then((http) => say({ port: http.address().port }));
