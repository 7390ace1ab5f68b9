// Vercel's AI SDK, by its providers for Open Responses and for Anthropic.
import assert from "node:assert";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenResponses } from "@ai-sdk/open-responses";
import { generateText, streamText, tool } from "ai";
import { z } from "zod";

const url = process.env.FREEHOLD_URL;
const apiKey = process.env.FREEHOLD_KEY;
const providers = [
  createOpenResponses({ name: "freehold", url: `${url}/v1/responses`, apiKey }),
  createAnthropic({ baseURL: `${url}/v1`, apiKey }),
];
const tools = {
  weather: tool({ description: "Weather", inputSchema: z.object({ city: z.string() }) }),
};
for (const provider of providers) {
  const plain = { model: provider("smol"), prompt: "What is gravity?", maxOutputTokens: 16, maxRetries: 0 };
  assert((await generateText(plain)).text);
  let text = "";
  for await (const part of streamText(plain).textStream) text += part;
  assert(text);
  const calling = { model: provider("tools"), prompt: "Weather?", tools, maxRetries: 0 };
  assert.deepEqual((await generateText(calling)).toolCalls[0].input, { city: "Bonn" });
  const streamed = streamText(calling);
  await streamed.consumeStream();
  assert.deepEqual((await streamed.toolCalls)[0].input, { city: "Bonn" });
}
console.log("text, stream, tools, by Open Responses and by Messages");
