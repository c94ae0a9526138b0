const $ = (id) => document.getElementById(id);
const origin = document.querySelector('meta[name="api"]').content;

// The client sends requests with cookies to the origin from which it was loaded.
const { createClient } = await import(origin + "/auth/auth.js");
const auth = createClient();

auth.addEventListener("signed-in", () => load());
auth.addEventListener("signed-out", ({ detail }) => show("login", detail.reason === "logout" ? "You are signed out." : ""));

function show(id, message = "") {
  $("login").hidden = id !== "login";
  $("app").hidden = id !== "app";
  $("message").textContent = message;
}

async function load() {
  const response = await auth.fetch(origin + "/me").catch(() => ({}));
  if (response.ok) {
    $("name").textContent = (await response.json()).name;
    show("app");
  } else if (response.status !== 401) {
    $("message").textContent = "The server does not answer. Try again.";
  }
}

$("login").addEventListener("submit", async (e) => {
  e.preventDefault();
  const response = await auth.login(new FormData(e.target)).catch(() => ({}));
  if (response.ok) e.target.reset();
  else if (response.status === 401) $("message").textContent = "Name or password is wrong.";
  else if (response.status === 429) $("message").textContent = `Try again in ${response.headers.get("Retry-After")} s.`;
  else $("message").textContent = "The server does not answer. Try again.";
});

$("reload").addEventListener("click", load);

$("logout").addEventListener("click", async () => {
  const response = await auth.logout().catch(() => ({}));
  if (!response.ok) $("message").textContent = "You are still signed in. Try again.";
});

load();
