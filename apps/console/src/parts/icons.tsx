import type { ComponentChildren } from 'preact';

function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" fill="none" stroke="currentColor" stroke-width="1.5"
      stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

export const Mark = () => (
  <svg class="mark" viewBox="0 0 32 32" width="24" height="24" aria-hidden="true" focusable="false">
    <rect width="32" height="32" rx="8" class="mark-ground" />
    <path d="M7 11h6l6 10h6M7 21h6l2-3.3M17 14.3l2-3.3h6" class="mark-line" />
  </svg>
);
export const Gauge = () => <Icon><path d="M2.5 12a6.2 6.2 0 1 1 11 0M8 9.5l2.8-3" /></Icon>;
export const Book = () => <Icon><path d="M3 3h4a1.5 1.5 0 0 1 1 .5A1.5 1.5 0 0 1 9 3h4v9.5H9.3a1.5 1.5 0 0 0-1.3.7 1.5 1.5 0 0 0-1.3-.7H3zM8 3.5v9" /></Icon>;
export const Leave = () => <Icon><path d="M6.5 13.5H3v-11h3.5M10 11l3-3-3-3M13 8H6.5" /></Icon>;
export const Sun = () => <Icon><circle cx="8" cy="8" r="2.7" /><path d="M8 1.8v1.2M8 13v1.2M1.8 8H3M13 8h1.2M3.6 3.6l.9.9M11.5 11.5l.9.9M3.6 12.4l.9-.9M11.5 4.5l.9-.9" /></Icon>;
export const Moon = () => <Icon><path d="M13 9.3A5.5 5.5 0 0 1 6.7 3a5.5 5.5 0 1 0 6.3 6.3z" /></Icon>;
export const Screen = () => <Icon><rect x="2" y="3" width="12" height="8" rx="1.5" /><path d="M6 13.5h4" /></Icon>;
export const Pause = () => <Icon><path d="M5.5 3.5v9M10.5 3.5v9" /></Icon>;
export const Play = () => <Icon><path d="M5 3.5l7.5 4.5L5 12.5z" /></Icon>;
export const Plug = () => <Icon><path d="M6 2v3M10 2v3M4.5 5h7v2.5a3.5 3.5 0 0 1-7 0zM8 11v3" /></Icon>;
export const Copy = () => <Icon><rect x="5.5" y="5.5" width="8" height="8" rx="1.5" /><path d="M10.5 5.5V4A1.5 1.5 0 0 0 9 2.5H4A1.5 1.5 0 0 0 2.5 4v5A1.5 1.5 0 0 0 4 10.5h1.5" /></Icon>;
export const Close = () => <Icon><path d="M4 4l8 8M12 4l-8 8" /></Icon>;
