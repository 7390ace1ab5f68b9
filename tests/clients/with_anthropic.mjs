// Anthropic's SDK for JavaScript.
import assert from "node:assert";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({
  baseURL: process.env.FREEHOLD_URL,
  apiKey: process.env.FREEHOLD_KEY,
  maxRetries: 0,
});
const messages = [{ role: "user", content: "What is gravity?" }];
const answer = await client.messages.create({ model: "smol", messages, max_tokens: 12 });
assert(answer.content[0].text && answer.usage.output_tokens === 12);
const stream = client.messages.stream({ model: "smol", messages, max_tokens: 12 });
assert((await stream.finalText()).length > 0);
const tools = [{ name: "weather", input_schema: { type: "object" } }];
const called = await client.messages
  .stream({ model: "tools", messages, max_tokens: 64, tools })
  .finalMessage();
assert.deepEqual(called.content[0].input, { city: "Bonn" });
assert(called.stop_reason === "tool_use");
assert((await client.messages.countTokens({ model: "smol", messages })).input_tokens > 5);
await assert.rejects(
  client.messages.create({ model: "none", messages, max_tokens: 1 }), Anthropic.NotFoundError,
);
console.log("message, stream, tools, count, errors");
