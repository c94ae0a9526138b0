/**
 * auth.js is a client for pages of the endpoints of github.com/ratchet-go/auth.
 * The server serves it: `a.Handler()` as `auth.js`, or `a.ScriptHandler()`.
 *
 *     import { createClient } from "/auth/auth.js";
 *
 *     const auth = createClient();
 *     auth.addEventListener("signed-out", ({ detail }) => showLogin(detail.reason));
 *     const response = await auth.fetch("/api/me");
 *
 * For TypeScript, copy this file into your project, and add to its tsconfig.json
 * "paths": { "/auth/auth.js": ["./auth.d.ts"] }.
 */

export interface Options {
  /**
   * URL of the endpoints, such as "/auth" or "https://api.example.com/auth". The
   * default is the folder from which auth.js was loaded. If it is of another origin,
   * CORS must allow the header Refresh-Key, with `body` also Refresh-Token and
   * Authorization, and credentials unless `body` is set. It must also expose the
   * header Retry-After, which is otherwise hidden from scripts.
   */
  base?: string;

  /**
   * Whether the tokens are in bodies and not in cookies. The default is cookies,
   * which no script can read. With `body`, the client stores both tokens in
   * IndexedDB, where every script of the origin can read them, also one that an
   * attacker injects, and where they remain when the browser is closed. The server
   * must allow it (Cookies.AllowBody, or no Config.Cookies). It must be the same in
   * all tabs.
   */
  body?: boolean;

  /**
   * Origins, besides that of `base`, to which `fetch` sends cookies or the access
   * token, such as ["https://api.example.com"]. They need CORS with credentials.
   */
  origins?: string[];

  /**
   * Seconds until the access token expires, if the page knows it, for example
   * because the server has rendered it. Otherwise the client learns it from the
   * next login or refresh.
   */
  expiresIn?: number;
}

/** The fields of POST /login, or a form with these fields. */
export type LoginFields = FormData | {
  login?: string;
  username?: string;
  email?: string;
  login_id?: string;
  password: string;
  device?: string;
  remember?: boolean;
};

/** The fields of POST /login/factor. The default challenge is that of the last login. */
export type FactorFields = FormData | { method: string; response: string; challenge?: string };

export interface TokenDetail {
  session_id: string;
  /** Seconds until the access token expires. */
  expires_in: number;
  /** Seconds until the session ends if it is not refreshed. */
  refresh_expires_in: number;
  /** Whether it happened in another tab. */
  otherTab: boolean;
}

export interface SignedOutDetail {
  /** The session, if this tab knows it. */
  session_id?: string;
  /**
   * Why the session has ended: "logout", "reuse" (somebody else used it),
   * "replaced", "evicted", "user", "revoked", "login" (the login was not completed)
   * or "". The server knows the reason only for a while.
   */
  reason: string;
  /** The "error" of the response: "missing_token" if nobody was signed in. Or "". */
  error: string;
  otherTab: boolean;
}

export interface ClientEvents {
  /** Somebody has signed in, here or in another tab. */
  "signed-in": CustomEvent<TokenDetail>;
  /**
   * The session has ended, or nobody was signed in. It is dispatched in every tab,
   * once in each, until the next "signed-in". Without BroadcastChannel, the other
   * tabs learn it from their next request.
   */
  "signed-out": CustomEvent<SignedOutDetail>;
  /** The access token is new, also if another tab has refreshed it. */
  refreshed: CustomEvent<TokenDetail>;
}

export interface Client extends EventTarget {
  /**
   * Is like the function fetch, for requests that need a session. If the access
   * token has expired, it is refreshed, and the request is sent again, except one
   * whose init.body is a stream. If the server could not decide (503, with the error
   * temporarily_unavailable, or to a GET or HEAD), the request is sent again after
   * Retry-After, at most 10 seconds; it is sent at most three times.
   *
   * The response may be that of a refresh: with status 401 or 400 if the session has
   * ended, and 503 if the server could not decide. A response whose "action" is
   * "login" is that of a session that has ended, unless its "error" is
   * insufficient_user_authentication or invalid_credentials: then the user must
   * sign in again for this request only, and there is no event.
   *
   * Requests to other origins than those of `base` and `origins` are passed to the
   * function fetch as they are. Browsers drop the header Authorization if a response
   * redirects to another origin.
   *
   * It rejects as fetch does, and if a refresh gets no response. An abort signal ends
   * the request at once; a refresh that it waits for goes on.
   */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;

  /**
   * Refreshes the access token. If several tabs call it at once, one of them sends
   * the request; the others get an empty response with status 204. With `force`,
   * this tab sends a request even so, for example to get the roles of a moment ago.
   * While the page is visible, the client refreshes without being called.
   */
  refresh(options?: { force?: boolean }): Promise<Response>;

  /**
   * Signs in. The response is that of POST /login. With status 401 and the action
   * "factor", the client keeps the challenge for `factor`. With status 429, the
   * header Retry-After is the number of seconds until the next attempt is possible.
   */
  login(fields: LoginFields): Promise<Response>;

  /** Completes a login by a second factor. The response is that of POST /login/factor. */
  factor(fields: FactorFields): Promise<Response>;

  /**
   * Signs out: this session, with `all` all sessions of the user, or with `others`
   * all except this one. If it rejects or the response is not ok, the user is still
   * signed in.
   */
  logout(options?: { all?: boolean; others?: boolean }): Promise<Response>;

  addEventListener<K extends keyof ClientEvents>(type: K, listener: (event: ClientEvents[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof ClientEvents>(type: K, listener: (event: ClientEvents[K]) => void, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/** Returns a client. A page needs one for each `base`. It also works in a worker. */
export function createClient(options?: Options): Client;
