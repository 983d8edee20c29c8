// Asks the Flux front end about scripts: stdin is a JSON array of them, the argument a file for the answers, an array of
// {valid, messages, ast}. `messages` are the language server's, which name the mistake and its line. (stdout is its log.)
const fs = require("node:fs");
const { createRequire } = require("node:module");
const path = require("node:path");

const tools = path.join(__dirname, "..", ".venv", "dashboard-checks", "node_modules", "@influxdata", "flux-lsp-node");
const flux = createRequire(__filename)(tools);

async function main() {
  const scripts = JSON.parse(fs.readFileSync(0, "utf8"));
  const messages = new Map();
  const server = new flux.Lsp();
  server.onMessage((text) => {
    const { method, params } = JSON.parse(text);
    if (method === "textDocument/publishDiagnostics") {
      messages.set(
        params.uri,
        params.diagnostics.map(({ message, range }) => `line ${range.start.line + 1}: ${message}`),
      );
    }
  });
  server.run();
  await server.send(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "initialize", params: { capabilities: {} } }));
  await server.send(JSON.stringify({ jsonrpc: "2.0", method: "initialized", params: {} }));
  const answers = [];
  for (const [index, text] of scripts.entries()) {
    // A folder each: files of one folder would be one package, where a name may stand once.
    const uri = `file:///${index}/query.flux`;
    const textDocument = { uri, languageId: "flux", version: 1, text };
    await server.send(JSON.stringify({ jsonrpc: "2.0", method: "textDocument/didOpen", params: { textDocument } }));
    while (!messages.has(uri)) {
      await new Promise((resume) => setImmediate(resume));
    }
    answers.push({ valid: flux.is_valid_flux(text), messages: messages.get(uri), ast: flux.parse(text) });
  }
  fs.writeFileSync(process.argv[2], JSON.stringify(answers));
  process.exit(0); // the server would run on
}

main();
