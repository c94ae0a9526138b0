import { api } from "./api.js";

const $ = (id) => document.getElementById(id);

// show shows the login form or the application.
function show(id, message = "") {
  $("login").hidden = id !== "login";
  $("app").hidden = id !== "app";
  $("message").textContent = message;
}

addEventListener("signed-out", () => show("login"));

// load shows who is signed in. If nobody is, the event signed-out shows the form.
async function load() {
  const response = await api("/api/me").catch(() => ({}));
  if (response.ok) {
    $("name").textContent = (await response.json()).name;
    show("app");
  } else if (response.status !== 401) {
    $("message").textContent = "The server does not answer. Try again."; // the user stays signed in
  }
}

$("login").addEventListener("submit", async (e) => {
  e.preventDefault();
  const body = new URLSearchParams(new FormData(e.target));
  const response = await fetch("/auth/login", { method: "POST", body }).catch(() => ({}));
  if (response.ok) {
    e.target.reset();
    load();
  } else {
    $("message").textContent = response.status === 401 ? "Name or password is wrong." : "The server does not answer. Try again.";
  }
});

$("reload").addEventListener("click", load);

$("logout").addEventListener("click", async () => {
  const response = await api("/auth/logout", { method: "POST" }).catch(() => ({}));
  if (response.ok) show("login", "You are signed out.");
  else $("message").textContent = "You are still signed in. Try again.";
});

load();
