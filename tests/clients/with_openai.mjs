// OpenAI's SDK for JavaScript.
import assert from "node:assert";
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.FREEHOLD_URL}/v1`,
  apiKey: process.env.FREEHOLD_KEY,
  maxRetries: 0,
});
const messages = [{ role: "user", content: "What is gravity?" }];
const chat = await client.chat.completions.create({ model: "smol", messages, max_tokens: 12 });
assert(chat.choices[0].message.content && chat.usage.completion_tokens === 12);
let text = "";
for await (const event of await client.chat.completions.create({
  model: "smol", messages, max_tokens: 12, stream: true,
})) text += event.choices[0]?.delta?.content ?? "";
assert(text);
const tool = { type: "function", name: "weather", strict: null, parameters: { type: "object" } };
const stream = client.responses.stream({ model: "tools", input: "Weather?", tools: [tool] });
const final = await stream.finalResponse();
assert.deepEqual(JSON.parse(final.output[0].arguments), { city: "Bonn" });
const first = await client.responses.create({ model: "smol", input: "I am Ada.", max_output_tokens: 16 });
assert(first.output_text);
const next = await client.responses.create({
  model: "smol", input: "Who am I?", previous_response_id: first.id, max_output_tokens: 16,
});
assert(next.usage.input_tokens > first.usage.input_tokens);
assert((await client.responses.retrieve(first.id)).id === first.id);
const vectors = await client.embeddings.create({ model: "smol", input: ["a", "b"] });
assert(vectors.data[1].embedding.length === 576);
const runner = client.chat.completions.stream({
  model: "tools", messages,
  tools: [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }],
});
const called = (await runner.finalChatCompletion()).choices[0].message.tool_calls;
assert.deepEqual(JSON.parse(called[0].function.arguments), { city: "Bonn" });
await assert.rejects(client.models.retrieve("none"), OpenAI.NotFoundError);
console.log("chat, stream, tools, responses stored and continued, embeddings, errors");
