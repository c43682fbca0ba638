// Requests to the gateway that serves this page. The key lives in the tab's session storage alone.

const KEY = "speech-gateway-key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// What an error body of any of the gateway's surfaces says.
async function sentence(answer) {
  try {
    const body = await answer.json();
    return body.error?.message ?? (typeof body.detail === "string" ? body.detail : null) ?? answer.statusText;
  } catch {
    return answer.statusText || `HTTP ${answer.status}`;
  }
}

export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key.get()) headers.set("Authorization", `Bearer ${key.get()}`);
  if (options.json !== undefined) headers.set("Content-Type", "application/json");
  const answer = await fetch(path, {
    ...options,
    headers,
    body: options.json !== undefined ? JSON.stringify(options.json) : options.body,
  });
  if (!answer.ok) {
    const hint = answer.status === 401 ? " Enter an API key above." : "";
    throw new ApiError((await sentence(answer)) + hint, answer.status);
  }
  return answer;
}

export const askJson = async (path, options) => (await ask(path, options)).json();

// Server-sent events of an answer, as [name, data] pairs.
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const name = /^event: (.*)$/m.exec(part)?.[1];
      const data = /^data: (.*)$/m.exec(part)?.[1];
      if (name && data) yield [name, JSON.parse(data)];
    }
  }
}
