// Elements without HTML strings: what a user or a server says is only ever text.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

export function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

// Runs an action of the user; a failure is said in the one place for messages.
export async function attempt(action) {
  say("");
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
    return undefined;
  }
}

export const button = (text, action, label) =>
  make("button", { type: "button", textContent: text, onclick: () => attempt(action), ...(label ? { "aria-label": label } : {}) });

export function options(select, names, chosen) {
  const before = chosen ?? select.value;
  select.replaceChildren(...names.map(([value, text]) => make("option", { value, textContent: text ?? value })));
  if (names.some(([value]) => value === before)) select.value = before;
}

export const seconds = (value) => (value >= 100 ? `${Math.round(value)} s` : `${value.toFixed(2)} s`);
