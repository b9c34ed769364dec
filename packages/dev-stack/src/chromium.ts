import { findProgram, isExecutable } from './programs.ts';

/** For media in tests: a fake camera and microphone, no questions asked, WebRTC over loopback, no calls home. */
export const chromiumFlags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--allow-loopback-in-peer-connection',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
] as const;

const installedElsewhere = [
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
];

/** The path of an installed Chromium or Chrome, for `playwright-core`'s `executablePath`. */
export async function findChromium(): Promise<string | undefined> {
  const onPath = await findProgram('chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome');
  if (onPath !== undefined) return onPath;
  for (const path of installedElsewhere) if (await isExecutable(path)) return path;
  return undefined;
}
