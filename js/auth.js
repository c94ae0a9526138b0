// The client of github.com/ratchet-go/auth for pages: see auth.d.ts and docs/clients.md.

const WINDOW = 30000; // the retry window, in ms

const clocks = () => [performance.now(), Date.now()]; // one may stop, the other may be set
const since = ([p, d]) => Math.max(performance.now() - p, Date.now() - d);
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const wait = (response) => pause(Math.min(response.headers.get("Retry-After") || 1, 10));
const bodyOf = (response) => response.clone().json().then(Object, () => ({}));
const base64url = (b) => btoa(String.fromCharCode(...new Uint8Array(b))).replace(/\W/g, (c) => ({ "+": "-", "/": "_" })[c] ?? "");

// over reports whether a response ends the session.
const over = ({ action, error }) => action === "login" && !/^(insufficient_user|invalid_credentials)/.test(error);

// transact replaces the record of all tabs by the result of f.
const transact = (name, f) => new Promise((resolve, reject) => {
  const open = indexedDB.open(name);
  open.onupgradeneeded = () => open.result.createObjectStore("s");
  open.onerror = () => reject(open.error);
  open.onsuccess = () => {
    try {
      const t = open.result.transaction("s", "readwrite", { durability: "strict" });
      const store = t.objectStore("s"), get = store.get(0);
      let record;
      get.onsuccess = () => store.put(record = f(get.result ?? { n: 0 }), 0);
      t.oncomplete = () => resolve(record);
      t.onabort = () => reject(t.error);
    } catch (e) {
      reject(e);
    }
    open.result.close(); // after the transaction
  };
});

export function createClient({ base, body: inBody, origins = [], expiresIn } = {}) {
  base = base ? new Request(base.replace(/\/?$/, "/")).url : new URL(".", import.meta.url).href;
  origins = [base, ...origins].map((o) => new URL(o).origin);
  const name = (inBody ? "auth-body:" : "auth:") + base;
  let record = { n: 0 }; // as last read. n: number of changes, s: session, e: expiry, k: pending key, t, a: tokens
  let stored;            // whether IndexedDB has worked
  let sid;               // the session that this tab knows
  let out;               // whether nobody is signed in; undefined: not known
  let refreshing, timer, expiry, challenge, tabs;

  // update replaces the record, and reports whether for all tabs.
  async function update(f = (r) => r) {
    try {
      record = await Promise.race([transact(name, f), pause(5).then(() => { throw 0; })]);
      return stored = true;
    } catch (e) {
      if (inBody && (stored || e === 0)) throw new Error("IndexedDB failed");
      record = f(record);
    }
  }

  // applied returns the record after a response.
  const applied = ({ n, k }, { session_id, expires_in, access_token, refresh_token }) =>
    ({ n: n + 1, k, s: session_id, e: Date.now() + expires_in * 1000, ...inBody && { a: access_token, t: refresh_token } });

  // lost signs this tab out, unless the record has changed since the change seen.
  async function lost(seen, data) {
    if (data.error === "missing_token" && sid && !out) await pause(0.5); // another tab that signs out says why
    let same;
    await update((r) => (same = (seen ?? r.n) === r.n) ? { n: r.n + 1 } : r);
    if (same) end(data);
    return same;
  }

  const post = (path, init) => fetch(base + path, {
    method: "POST", credentials: inBody ? "omit" : "include", redirect: "error", cache: "no-store", signal: AbortSignal.timeout(30000), ...init,
  });

  // exchange refreshes, unless the record has changed since the change seen.
  async function exchange(seen) {
    for (let tries = 3; ;) {
      const fresh = base64url(crypto.getRandomValues(new Uint8Array(32)));
      const digest = await crypto.subtle?.digest("SHA-256", new TextEncoder().encode(fresh));
      const sent = clocks(), signal = AbortSignal.timeout(WINDOW);
      let first;
      const shared = await update((r) => {
        first = !(r.n > seen) && !/^[\w-]{43}$/.test(r.k);
        return first ? { ...r, k: fresh } : r;
      });
      const { n, k, t } = record;
      if (n > seen) return new Response(null, { status: 204 });
      let response, data = { error: "missing_token", action: "login" };
      if (inBody && !t) {
        end(data);
        return Response.json(data, { status: 401 });
      }
      const headers = inBody ? { "Refresh-Token": t } : {};
      if (shared || inBody) headers["Refresh-Key"] = first && digest ? "sha256=" + base64url(digest) : k;
      try {
        if (since(sent) > WINDOW) throw new Error("suspended");
        response = await post("refresh", { headers, signal });
        data = await bodyOf(response);
        if (response.ok && !data.session_id) throw new Error("incomplete");
      } catch (e) {
        if (!--tries) throw e;
        await pause(1);
        continue;
      }
      if (response.ok) {
        let late;
        await update((r) => {
          late = inBody ? r.t !== t : r.n > n && r.s !== data.session_id; // another tab was faster or signed out
          const used = data.rotated && r.k === k && (inBody || since(sent) < WINDOW);
          return late ? r : applied(used ? { n: r.n } : r, data);
        });
        if (!late) begin("refreshed", data);
        return response;
      }
      if (response.status < 500 && (!over(data) || await lost(n, data)) || !--tries) return response;
      await wait(response);
    }
  }

  // renew refreshes once for all tabs. The lock saves requests; nothing depends on it.
  async function renew(seen) {
    refreshing ??= (async () => {
      let result;
      const once = () => result ??= exchange(seen);
      try {
        await navigator.locks.request(name, { signal: AbortSignal.timeout(3000) }, once);
      } catch { /* no locks, or one that is not released */ }
      return once();
    })().finally(() => { refreshing = null; });
    return (await refreshing).clone();
  }

  // emit dispatches an event, in the other tabs too if tell is set.
  function emit(type, detail, tell, otherTab) {
    if (tell) tabs?.postMessage({ type, ...detail });
    client.dispatchEvent(new CustomEvent(type, { detail: { ...detail, otherTab } }));
  }

  function begin(type, { session_id, expires_in, refresh_expires_in }, otherTab = false) {
    const detail = { session_id, expires_in, refresh_expires_in };
    const known = !out && (sid ?? session_id) === session_id;
    out = false;
    sid = session_id;
    ahead(expires_in);
    if (!known && type === "refreshed") emit("signed-in", detail, false, otherTab);
    emit(type, detail, !otherTab, otherTab);
  }

  function end({ reason = "", error = "", action }, otherTab = false) {
    if (out) return;
    out = true;
    clearTimeout(timer);
    emit("signed-out", { session_id: sid, reason, error }, !otherTab && (sid || !action), otherTab);
  }

  async function hear({ data }) {
    if (!await update().catch(() => {})) {
      if (inBody) return; // each tab has its own tokens
      record.n++;
    }
    const same = data.session_id === sid;
    if (data.type === "signed-out") (same || !data.session_id || !sid) && end(data, true);
    else if (!same || !out) begin(data.type, data, true);
  }

  // ahead refreshes shortly before the access token expires.
  function ahead(seconds) {
    if (isNaN(seconds)) return;
    expiry = performance.now() + seconds * 1000;
    later(seconds - Math.min(30, seconds / 5) * (1 + Math.random()));
  }

  function later(seconds) {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const { document } = globalThis; // not in a worker
      if (document?.hidden) return document.addEventListener("visibilitychange", () => later(0), { once: true });
      const response = !out && await client.refresh().catch(() => {});
      if (!out && !response?.ok) later(10);
    }, Math.min(Math.max(seconds, 1), 2e6) * 1000);
  }

  async function signIn(path, fields, more) {
    const body = new URLSearchParams(fields instanceof FormData ? fields : JSON.parse(JSON.stringify(fields)));
    for (const key in more) body.has(key) || body.set(key, more[key]);
    if (inBody) body.set("delivery", "body");
    const response = await post(path, { body }), data = await bodyOf(response);
    challenge = data.challenge ?? challenge;
    if (response.ok) {
      if (!data.session_id) throw new Error("incomplete");
      await update(({ n }) => applied({ n }, data)); // a pending key belongs to another session
      begin("signed-in", data);
    }
    return response;
  }

  const client = Object.assign(new EventTarget(), {
    async fetch(input, init) {
      const { url, signal } = input instanceof Request ? input : new Request(input);
      if (!origins.includes(new URL(url).origin)) return fetch(input, init);
      const orAbort = (f) => Promise.race([f, new Promise((_, reject) => (init?.signal ?? signal).addEventListener("abort", (e) => reject(e.target.reason)))]);
      await ready;
      if (!out && performance.now() > expiry) {
        const response = await orAbort(client.refresh());
        if (!response.ok) return response;
      }
      const stream = init?.body instanceof ReadableStream;
      for (let tries = 3; ;) {
        const { n, a } = record;
        let request = new Request(input instanceof Request && !stream ? input.clone() : input, init);
        if (inBody) a && !request.headers.has("Authorization") && request.headers.set("Authorization", "Bearer " + a);
        else if (request.credentials === "same-origin") request = new Request(request, { credentials: "include" });
        const response = await fetch(request), { status } = response;
        const data = [400, 401, 503].includes(status) && !response.redirected ? await bodyOf(response) : {};
        if (over(data)) {
          if (await lost(n, data)) return response;
        } else if (data.action === "refresh") {
          const refreshed = n === record.n && await orAbort(renew(n));
          if (refreshed && !refreshed.ok) return refreshed;
        } else if (data.error !== "temporarily_unavailable" && (status !== 503 || !/GET|HEAD/.test(request.method))) {
          return response;
        }
        if (stream || !--tries) return response;
        if (status === 503) await wait(response);
      }
    },

    async refresh({ force } = {}) {
      await ready;
      return force ? exchange() : renew(record.n);
    },

    login: (fields) => signIn("login", fields),
    factor: (fields) => signIn("login/factor", fields, { challenge }),

    async logout({ all, others } = {}) {
      await update().catch(() => {});
      const { t, a } = record;
      const response = all || others
        ? await client.fetch(base + "logout/all" + (others ? "?others=true" : ""), { method: "POST" })
        : await post("logout", { headers: t ? { "Refresh-Token": t, Authorization: "Bearer " + a } : {} });
      if (response.ok && !others) await lost(null, { reason: "logout" }).catch(() => end({ reason: "logout" }));
      return response;
    },
  });

  try {
    tabs = new BroadcastChannel(name);
    tabs.onmessage = hear;
  } catch { /* the server tells this tab */ }
  const ready = update().catch(() => {}).then(() => {
    sid ??= record.s;
    expiry ?? ahead(expiresIn ?? (record.e - Date.now()) / 1000);
  });
  return client;
}
