import { createClient } from "/auth/auth.js";

const auth = createClient();
const $ = (id) => document.getElementById(id);
const down = "The server does not answer. Try again.";

// show shows the login form or the application.
function show(id, message = "") {
  $("login").hidden = id !== "login";
  $("app").hidden = id !== "app";
  $("message").textContent = message;
}

auth.addEventListener("signed-in", () => load());
auth.addEventListener("signed-out", ({ detail }) => show("login", ended(detail)));

function ended({ reason, error }) {
  if (reason === "logout") return "You are signed out.";
  if (reason === "reuse") return "Somebody else used this sign-in. Sign in again.";
  return error === "missing_token" ? "" : "Your session has ended. Sign in again.";
}

// load shows who is signed in. If nobody is, the event signed-out shows the form.
async function load() {
  const response = await auth.fetch("/api/me").catch(() => ({}));
  if (response.ok) {
    $("name").textContent = (await response.json()).name;
    show("app");
  } else if (response.status !== 401) {
    $("message").textContent = down; // the user stays signed in
  }
}

$("login").addEventListener("submit", async (e) => {
  e.preventDefault();
  const response = await auth.login(new FormData(e.target)).catch(() => ({}));
  if (response.ok) e.target.reset();
  else if (response.status === 401) $("message").textContent = "Name or password is wrong.";
  else if (response.status === 429) $("message").textContent = `Try again in ${response.headers.get("Retry-After")} s.`;
  else $("message").textContent = down;
});

$("reload").addEventListener("click", load);

$("logout").addEventListener("click", async () => {
  const response = await auth.logout().catch(() => ({}));
  if (!response.ok) $("message").textContent = "You are still signed in. Try again.";
});

load();
