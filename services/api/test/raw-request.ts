import { connect } from 'node:net';

/** Sends bytes as they are and reads until the other side ends; for what no HTTP client would send. */
export const rawRequest = (url: string, bytes: string): Promise<string> => {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect(Number(port), hostname, () => socket.write(Buffer.from(bytes, 'latin1')));
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', reject);
    socket.on('close', () => resolve(Buffer.concat(chunks).toString('utf8')));
  });
};

/** Status and body of a raw answer. */
export const readAnswer = (raw: string): { readonly status: number; readonly body: string } => ({
  status: Number(/^HTTP\/1\.1 (\d{3})/.exec(raw)?.[1]),
  body: raw.slice(raw.indexOf('\r\n\r\n') + 4),
});
