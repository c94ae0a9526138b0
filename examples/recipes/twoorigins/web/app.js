const $ = (id) => document.getElementById(id);
const origin = document.querySelector('meta[name="api"]').content;
let refreshing = null, refreshes = 0; // the refresh in progress, which requests share, and how many have ended

// api sends a request to the API. The browser sends and stores cookies of another
// origin only with credentials: "include". The recipe spa explains the rest.
async function api(path, options, tries = 3) {
  const before = refreshes;
  const response = await fetch(origin + path, { ...options, credentials: "include" });
  const { action } = response.ok ? {} : await response.clone().json().catch(() => ({}));
  if (action === "login") show("login");
  if (tries === 1 || action !== "refresh" && response.status !== 503) return response;
  if (response.status === 503) return new Promise((done) => setTimeout(done, 1000)).then(() => api(path, options, tries - 1));
  if (refreshes === before) refreshing ??= api("/auth/refresh", { method: "POST" }).finally(() => { refreshing = null; refreshes++; });
  const refreshed = await refreshing; // null if another request's refresh has ended
  return !refreshed || refreshed.ok ? api(path, options, tries - 1) : refreshed.clone();
}

function show(id, message = "") {
  $("login").hidden = id !== "login";
  $("app").hidden = id !== "app";
  $("message").textContent = message;
}

async function load() {
  const response = await api("/me").catch(() => ({}));
  if (response.ok) {
    $("name").textContent = (await response.json()).name;
    show("app");
  } else if (response.status !== 401) {
    $("message").textContent = "The server does not answer. Try again.";
  }
}

$("login").addEventListener("submit", async (e) => {
  e.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(e.target)));
  const headers = { "Content-Type": "application/json" };
  const response = await api("/auth/login", { method: "POST", headers, body }).catch(() => ({}));
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
