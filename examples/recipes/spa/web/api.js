// api is fetch for requests that need a session. It may send a request more than
// once, so the body must not be a stream. The server has not carried out a request
// to which it responds with status 503 or with "action".
let refreshing = null, refreshes = 0; // the refresh in progress, which requests share, and how many have ended

export async function api(path, options, tries = 3) {
  const before = refreshes;
  const response = await fetch(path, options);
  const { action } = response.ok ? {} : await response.clone().json().catch(() => ({}));
  if (action === "login") dispatchEvent(new Event("signed-out"));
  if (tries === 1 || action !== "refresh" && response.status !== 503) return response;
  if (response.status === 503) return new Promise((done) => setTimeout(done, 1000)).then(() => api(path, options, tries - 1));
  if (refreshes === before) refreshing ??= api("/auth/refresh", { method: "POST" }).finally(() => { refreshing = null; refreshes++; });
  const refreshed = await refreshing; // null if another request's refresh has ended
  return !refreshed || refreshed.ok ? api(path, options, tries - 1) : refreshed.clone();
}
