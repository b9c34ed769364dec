import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { chromiumFlags, findChromium } from '@realtime-service/dev-stack';
import { chromium } from 'playwright-core';

/** A person in Chromium, with livekit-client and a fake camera. */
export interface BrowserParticipant {
  /** Publishes the fake camera. */
  readonly enableCamera: () => Promise<void>;
  /** Identities whose video is really playing here: decoded frames advance. */
  readonly seenPlaying: () => Promise<string[]>;
  /** What livekit-client does to its own connection, as `resume-reconnect`. */
  readonly simulate: (scenario: string) => Promise<void>;
  /** `connected`, `reconnecting` and so on, and how often it has come back. */
  readonly state: () => Promise<{ readonly connection: string; readonly returns: number }>;
  /** The newest token that LiveKit handed out. */
  readonly token: () => Promise<string>;
  /** The data messages that have come, and who has sent each, as livekit-client tells it. */
  readonly messages: () => Promise<readonly Message[]>;
  /** livekit-client's reason, once this person is out. */
  readonly disconnectReason: () => Promise<number | undefined>;
}

interface Message {
  readonly text: string;
  readonly topic: string;
  /** Null where livekit-client has nobody of whom it could tell. */
  readonly participant: string | null;
  readonly identity: string;
}

export interface Chromium {
  readonly connect: (serverUrl: string, token: string) => Promise<BrowserParticipant>;
  readonly stop: () => Promise<void>;
}

const html = '<!doctype html><script src="/livekit-client.js"></script><body><script src="/page.js"></script>';

/** A loopback page, which browsers trust with cameras. */
const servePage = async () => {
  const umd = new URL('livekit-client.umd.js', import.meta.resolve('livekit-client'));
  const scripts: Readonly<Record<string, string>> = {
    '/livekit-client.js': await readFile(umd, 'utf8'),
    '/page.js': await readFile(new URL('browser-page.js', import.meta.url), 'utf8'),
  };
  const server = createServer(({ url = '' }, response) => {
    const script = scripts[url];
    response.setHeader('content-type', script === undefined ? 'text/html' : 'text/javascript');
    response.end(script ?? html);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no TCP port');
  return { url: `http://127.0.0.1:${address.port}/`, stop: () => server.close() };
};

/** Headless Chromium; each participant is a tab of its own. */
export const startChromium = async (): Promise<Chromium> => {
  const executablePath = await findChromium();
  if (executablePath === undefined) throw new Error('Chromium is not installed');
  const served = await servePage();
  const browser = await chromium.launch({ executablePath, headless: true, args: [...chromiumFlags] });
  return {
    connect: async (serverUrl, token) => {
      const page = await browser.newPage();
      await page.goto(served.url);
      await page.evaluate(`tab.connect(${JSON.stringify(serverUrl)}, ${JSON.stringify(token)})`);
      return {
        enableCamera: () => page.evaluate('tab.enableCamera()'),
        seenPlaying: () => page.evaluate('tab.seenPlaying()'),
        simulate: (scenario) => page.evaluate(`tab.simulate(${JSON.stringify(scenario)})`),
        state: () => page.evaluate('tab.state()'),
        token: () => page.evaluate('tab.token()'),
        messages: () => page.evaluate('tab.messages()'),
        disconnectReason: () => page.evaluate('tab.disconnectReason()'),
      };
    },
    stop: async () => {
      await browser.close();
      served.stop();
    },
  };
};
